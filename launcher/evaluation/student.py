"""`stillhouse student`: the student of a run as it is in one of its checkpoints, as a Hugging Face folder. The run may go on meanwhile."""

import argparse
from pathlib import Path
from typing import Any

from data_shards.corpus import Corpus
from kd.checkpoint.checkpoint import load_state
from kd.checkpoint.on_disk import Checkpoint, newest_good, read
from kd.errors import KdError
from kd.export.hugging_face import save_student
from kd.export.model_card import CardFacts, is_hub_name, model_title
from kd.models.encoder import Encoder
from kd.student.student import student_of_config
from launcher.config.load import config_of
from launcher.config.run_config import RunConfig
from launcher.errors import LaunchError
from launcher.process.standard_streams import say
from launcher.run_folder.folder import RunFolder


def run(arguments: argparse.Namespace) -> int:
    """Write the folder and say what is in it."""
    run, out = RunFolder(Path(arguments.run)), Path(arguments.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise LaunchError(f"--out: expected a free name or an empty folder, got {out}; choose another")
    checkpoint = _checkpoint(run, arguments.update)
    config = config_of(checkpoint.progress.facts["config"], str(checkpoint.folder))
    if not isinstance(config, RunConfig):
        raise LaunchError(f"{run.folder}: expected a run on a corpus, got a run on a task; its student/ folder has the best weights")
    tokenizer = Corpus.open(config.data.shards, config.data.cache_folder).tokenizer_folder()
    save_student(_student(config, checkpoint), out, tokenizer_folder=tokenizer, card=_card(config, checkpoint))
    progress = checkpoint.progress
    say(f"student after update {progress.done:,} of {run.folder}, {progress.tokens:,} tokens, written to {out}")
    return 0


def _checkpoint(run: RunFolder, update: int | None) -> Checkpoint:
    """The checkpoint after `update`, or the newest that is whole."""
    if not run.configuration.is_file():
        raise LaunchError(f"{run.folder}: expected a run folder, got one without {run.configuration.name}; check the path")
    there = sorted(int(folder.name.removeprefix("update-")) for folder in run.checkpoints.glob("update-" + 8 * "[0-9]"))
    if update is None:
        checkpoint, passed_over = newest_good(run.checkpoints)
        for line in passed_over:
            say(line)
        if checkpoint is None:
            raise LaunchError(f"{run.checkpoints}: expected a checkpoint, got none; let the run write one")
        return checkpoint
    if update not in there:
        listed = ", ".join(map(str, there)) or "none"
        raise LaunchError(f"--update: expected a checkpoint of {run.folder}: {listed}; got {update}; choose one of these")
    checkpoint = read(run.checkpoints / f"update-{update:08d}")
    checkpoint.verify()
    return checkpoint


def _student(config: RunConfig, checkpoint: Checkpoint) -> Encoder:
    record: dict[str, Any] | None = checkpoint.progress.facts.get("student")
    if record is None:
        raise KdError(f"{checkpoint.folder}: expected the student's configuration, got none; finish the run to have its student")
    student = student_of_config(config.student, record["model"])
    student.load_weights(load_state(checkpoint).student)
    return student


def _card(config: RunConfig, checkpoint: Checkpoint) -> CardFacts:
    """The facts that a checkpoint has. Scores, time and machine are those of a finished run only."""
    teachers = [member.model for member in config.members.values()]
    return CardFacts(
        title=f"{config.name}, update {checkpoint.progress.done}",
        teachers=[model_title(model) for model in teachers],
        base_models=[model for model in teachers if is_hub_name(model)],
        training={
            "teacher": ", ".join(model_title(model) for model in teachers) or "none",
            "updates": f"{checkpoint.progress.done:,} of a run that was not finished",
            "windows per update": config.train.global_batch,
            "tokens per window": config.data.window_tokens,
            "tokens": checkpoint.progress.tokens,
            "learning rate": config.optimizer.learning_rate,
        },
        window_tokens=config.data.window_tokens,
    )
