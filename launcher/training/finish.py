"""What a finished run leaves for others: the student as a Hugging Face folder, and report.json."""

import json
from pathlib import Path
from typing import Any

from data_shards.errors import DataError
from kd.distributed import process_group
from kd.errors import KdError
from kd.evaluation.mlm import MlmScores
from kd.export.files import CARD
from kd.export.hugging_face import save_student
from kd.models.encoder import Encoder
from kd.models.sizes import model_sizes
from launcher.config.run_config import RunConfig
from launcher.run_folder.folder import RunFolder
from launcher.training.build import RunParts
from launcher.training.card import card_facts
from stillhouse.files import sha256_of_file, write_atomically


def write_student(
    config: RunConfig,
    folder: RunFolder,
    parts: RunParts,
    student: Encoder,
    scores: MlmScores | None,
    facts: dict[str, int],
    seconds: float,
) -> None:
    """Write both. facts: updates, skipped_updates and tokens of the run; seconds: how long it took."""
    teachers = [member.model for member in config.members.values()]
    sizes = model_sizes(student)
    report: dict[str, Any] = {
        "name": config.name,
        **facts,
        "elapsed_seconds": round(seconds, 1),
        "tokens_per_second": round(facts["tokens"] / max(seconds, 1e-9), 1),
        "ranks": process_group.world_size(),
        "precision": parts.precision,
        "parameters": sizes.parameters,
        "bytes": sizes.bytes,
        "teacher": ", ".join(str(Path(model).resolve()) if Path(model).exists() else model for model in teachers) or None,
        "student": str(folder.student.resolve()),
        "heldout": scores.row if scores is not None else None,
    }
    try:
        tokenizer, card = parts.corpus.tokenizer_folder(), card_facts(config, parts.corpus.manifest, report, scores, parts.trainer.phases)
    except DataError as error:  # the caller saves what KdError and OSError leave unwritten
        raise KdError(str(error)) from None
    save_student(student, folder.student, tokenizer_folder=tokenizer, card=card)
    report["files"] = {file.name: sha256_of_file(file) for file in sorted(folder.student.iterdir()) if file.name != CARD}
    write_atomically(folder.report, json.dumps(report, indent=1) + "\n")
