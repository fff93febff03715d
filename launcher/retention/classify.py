"""`stillhouse classify`: a teacher and a student on the user's own file, as a retention proof of one task.

It writes two configurations, `task.yaml` and `proof.yaml`, runs `stillhouse retention` on them, and exports the student.
"""

import argparse
import re
import shlex
from pathlib import Path
from typing import Any

from data_shards.errors import DataError
from data_shards.tasks.settings import TaskDataSettings
from kd.models.config import read_config
from launcher.config.yaml_file import dump_yaml
from launcher.errors import LaunchError
from launcher.process.signals import Exit
from launcher.reporting.console import PipeSafeConsole
from launcher.retention import retention
from launcher.retention.guess import Guess, guess_kind, guess_separator
from launcher.retention.plan import Plan
from launcher.retention.settings import Retention
from launcher.retention.ship import PRECISIONS, export_student, export_words, usage
from launcher.retention.start import read_start
from stillhouse.files import write_atomically

TASK, PROOF = "task.yaml", "proof.yaml"
LAYERS = "teacher-layers"
NAME, STUDENT = "mine", "student"


def run(arguments: argparse.Namespace) -> int:
    """Write the configurations, run the proof and export the student; the exit code of the proof."""
    if not Path(arguments.file).is_file():
        raise LaunchError(f"{arguments.file}: expected a file of examples, got none there; check the path")
    if arguments.label in (arguments.text, arguments.text_pair):
        raise LaunchError(f"--label: expected another column than the text's, got {arguments.label}; correct it")
    read_config(arguments.teacher)  # before files are written, which a corrected command would not match
    if arguments.student != LAYERS:
        read_config(read_start("--student", arguments.student).model)
    out = Path(arguments.out)
    console = PipeSafeConsole()

    def say(text: str) -> None:
        console.print(text, soft_wrap=True, highlight=False, markup=False)

    guess = _kind(arguments)
    said = f"# kind: {guess.kind}, for {guess.reason}{'' if arguments.kind else '; --kind sets another'}"
    if separator := _separator(arguments):
        said += f"\n# separator: {'a tab' if separator == chr(9) else separator}, for the first line has these columns with it"
    files = {out / TASK: dump_yaml(task_values(arguments, guess)), out / PROOF: dump_yaml(proof_values(arguments))}
    command = shlex.join(["stillhouse", "retention", "--config", str(out / PROOF), "--folder", str(out)])
    if arguments.dry_run:
        say(said)
        for path, text in files.items():
            say(f"# {path}\n{text}")
        say(f"# {command}{f' --ranks {arguments.ranks}' if arguments.ranks > 1 else ''}")
        words = [shlex.join(["stillhouse", *export_words(_student(arguments, out), out, out / TASK, one)]) for one in PRECISIONS]
        say(f"# {words[0]}\n# if INT8 is refused: {words[1]}")
        return Exit.DONE
    say(said.replace("# ", ""))
    out.mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise LaunchError(
                f"{path}: expected the settings of this command, got others; choose another --out, or run {command} to use the file's"
            )
        write_atomically(path, text)
    proof = {"config": str(out / PROOF), "settings": [], "folder": str(out), "ranks": arguments.ranks, "jobs": 1, "dry_run": False}
    code = retention.run(argparse.Namespace(**proof))
    if code == Exit.DONE:
        student = _student(arguments, out)
        exported = export_student(student, out, out / TASK, say)
        say(f"the student: {student}")
        say(usage(student, exported, guess.kind, bool(arguments.text_pair)))
    return code


def _kind(arguments: argparse.Namespace) -> Guess:
    """The kind that --kind says, or the one that the label column suggests."""
    values = {"train": str(Path(arguments.file).resolve()), "columns": _columns(arguments), **_file_settings(arguments)}
    try:
        guess = guess_kind(TaskDataSettings(kind="classification", **values))
    except DataError as error:
        if arguments.kind is not None and "decimal point" in str(error):
            return Guess(arguments.kind, "--kind says so")
        raise LaunchError(_as_options(str(error))) from None
    if arguments.kind in (None, guess.kind):
        return guess
    return Guess(arguments.kind, "--kind says so", guess.separator)


def _as_options(message: str) -> str:
    """An error about columns that names this command's options instead of settings."""
    problem, semicolon, advice = message.rpartition("; ")
    if advice == "set format":
        return f"{problem}; convert it, or rename it"
    option = re.match(r"set columns\.(\w+)", advice)
    return f"{problem}; correct --{option[1].replace('_', '-')}" if semicolon and option else message


def _separator(arguments: argparse.Namespace) -> str | None:
    return guess_separator(arguments.file, list(_columns(arguments).values()))


def _file_settings(arguments: argparse.Namespace) -> dict[str, str]:
    """The settings that the file's form needs."""
    separator = _separator(arguments)
    return {} if separator is None else {"separator": separator}


def _columns(arguments: argparse.Namespace) -> Any:
    columns = {"text": arguments.text, "text_pair": arguments.text_pair, "label": arguments.label}
    return {key: column for key, column in columns.items() if column is not None}


def _student(arguments: argparse.Namespace, out: Path) -> Path:
    """The folder of the student that the proof makes."""
    plan = Plan(str(out / PROOF), Retention.model_validate(proof_values(arguments)), out)
    return plan.folder(NAME, STUDENT, arguments.learning_rate, arguments.seed) / "student"


def task_values(arguments: argparse.Namespace, guess: Guess) -> dict[str, Any]:
    """The task's configuration."""
    several = {"label_separator": guess.separator or ","} if guess.kind == "multi_label" else {}
    return {
        "run": {"folder": str(Path(arguments.out) / "task")},
        "data": {
            "kind": guess.kind,
            **several,
            "train": str(Path(arguments.file).resolve()),
            **_file_settings(arguments),
            "columns": _columns(arguments),
            "dev_fraction": arguments.dev_fraction,
            "split_seed": arguments.seed,
            "drop_duplicates": True,
            "max_length": arguments.max_length,
        },
        "student": {"init": arguments.teacher, "architecture": "same"},
        "train": {
            "global_batch": arguments.batch,
            "micro_batch": _micro_batch(arguments.batch, arguments.ranks),
            "epochs": arguments.epochs,
            "zero_stage": 0,
            "clip": 1.0,
        },
        "optimizer": {"weight_decay": 0.01, "betas": [0.9, 0.999], "warmup": 0.1},
        "evaluate": {"keep": "best", "choose_on": 0.1},
    }


def proof_values(arguments: argparse.Namespace) -> dict[str, Any]:
    """The proof's settings: one task, one student, one seed."""
    common = {"learning_rates": [arguments.learning_rate], "epochs": arguments.epochs}
    start = "teacher" if arguments.student == LAYERS else arguments.student
    return {
        "title": f"A classifier of {Path(arguments.file).name}",
        "tasks": {NAME: {"config": str(Path(arguments.out) / TASK), "title": Path(arguments.file).stem}},
        "teacher": {"model": arguments.teacher, **common},
        "students": {STUDENT: {"start": start, **common}},
        "seeds": [arguments.seed],
    }


def _micro_batch(batch: int, ranks: int) -> int:
    """Rows of a rank's micro-batch: at most 32. Raises LaunchError where ranks do not divide the batch."""
    if batch % ranks:
        raise LaunchError(f"--batch: expected a multiple of the {ranks} ranks, got {batch}; change either")
    return max(size for size in range(1, min(32, batch // ranks) + 1) if batch // ranks % size == 0)
