"""The output of a finished run: the student as a Hugging Face folder, and report.json."""

import json
import math
from pathlib import Path
from typing import Any

import torch

from data_shards.corpus import Corpus
from data_shards.errors import DataError
from kd.distributed import process_group
from kd.errors import KdError
from kd.evaluation.mlm import MlmScores
from kd.export.files import CARD
from kd.export.hugging_face import save_student
from kd.models.sizes import model_sizes
from launcher.config.run_config import RunConfig
from launcher.training.card import card_facts
from launcher.training.parts import Finished
from stillhouse.files import sha256_of_file, write_atomically


def report_of(finished: Finished) -> dict[str, Any]:
    """The facts that report.json has of every run."""
    teachers = [member.model for member in finished.config.members.values()]
    sizes = model_sizes(finished.student)
    return {
        "name": finished.config.name,
        **finished.facts,
        "elapsed_seconds": round(finished.seconds, 1),
        "tokens_per_second": round(finished.facts["tokens"] / max(finished.seconds, 1e-9), 1),
        "ranks": process_group.world_size(),
        "device": torch.cuda.get_device_name() if process_group.device().type == "cuda" else "cpu",
        "precision": finished.precision,
        "parameters": sizes.parameters,
        "bytes": sizes.bytes,
        "teacher": ", ".join(str(Path(model).resolve()) if Path(model).exists() else model for model in teachers) or None,
        "student": str(finished.folder.student.resolve()),
    }


def digests_of(folder: Path) -> dict[str, str]:
    """sha256 of each exported file but the card, which a user may edit."""
    return {file.name: sha256_of_file(file) for file in sorted(folder.iterdir()) if file.name != CARD}


def write_student(corpus: Corpus, finished: Finished) -> list[str]:
    """Write both. corpus: the text that the run learned from. Returns remarks on the scores."""
    config, folder, scores = finished.config, finished.folder, finished.scores
    assert isinstance(config, RunConfig)
    assert scores is None or isinstance(scores, MlmScores)
    report = report_of(finished) | {"heldout": scores.row if scores is not None else None}
    try:
        tokenizer, card = corpus.tokenizer_folder(), card_facts(config, corpus.manifest, report, scores, finished.phases)
    except DataError as error:  # the caller saves what KdError and OSError leave unwritten
        raise KdError(str(error)) from None
    save_student(finished.student, folder.student, tokenizer_folder=tokenizer, card=card)
    report["files"] = digests_of(folder.student)
    write_atomically(folder.report, json.dumps(report, indent=1) + "\n")
    if scores is None or math.isfinite(scores["loss"]):
        return []
    return [f"the held-out loss is {scores['loss']}: the student is of no use; lower optimizer.learning_rate, or start from other weights"]
