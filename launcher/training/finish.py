"""What a finished run leaves for others: the student as a Hugging Face folder, and report.json."""

import json
from pathlib import Path
from typing import Any

from kd.distributed import process_group
from kd.evaluation.mlm import MlmScores
from kd.export.hugging_face import model_sizes, public_name, save_student
from kd.models.encoder import Encoder
from launcher.config.run_config import RunConfig
from launcher.run_folder.folder import RunFolder
from launcher.training.build import RunParts
from stillhouse.files import write_atomically


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
    training = {key: report[key] for key in ("teacher", "updates", "tokens", "precision", "heldout")}
    training["teacher"] = ", ".join(map(public_name, teachers)) or None
    training |= {"layers": config.student.layers} if config.student.init == "teacher" else {"begun from": public_name(config.student.init)}
    training |= {
        f"objective {phase.name}".rstrip(): [term.model_dump(mode="json") for term in phase.terms] for phase in parts.trainer.phases
    }
    save_student(student, folder.student, training=training, tokenizer_folder=parts.corpus.tokenizer_folder())
    write_atomically(folder.report, json.dumps(report, indent=1) + "\n")
