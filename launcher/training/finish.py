"""The output of a finished run: the student as a Hugging Face folder, and report.json."""

import json
from pathlib import Path
from typing import Any

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


def write_student(corpus: Corpus, finished: Finished) -> list[str]:
    """Write both. corpus: the text that the run learned from. Returns no remarks: the scores say all."""
    config, folder, scores, facts = finished.config, finished.folder, finished.scores, finished.facts
    assert isinstance(config, RunConfig)
    assert scores is None or isinstance(scores, MlmScores)
    teachers = [member.model for member in config.members.values()]
    sizes = model_sizes(finished.student)
    report: dict[str, Any] = {
        "name": config.name,
        **facts,
        "elapsed_seconds": round(finished.seconds, 1),
        "tokens_per_second": round(facts["tokens"] / max(finished.seconds, 1e-9), 1),
        "ranks": process_group.world_size(),
        "precision": finished.precision,
        "parameters": sizes.parameters,
        "bytes": sizes.bytes,
        "teacher": ", ".join(str(Path(model).resolve()) if Path(model).exists() else model for model in teachers) or None,
        "student": str(folder.student.resolve()),
        "heldout": scores.row if scores is not None else None,
    }
    try:
        tokenizer, card = corpus.tokenizer_folder(), card_facts(config, corpus.manifest, report, scores, finished.phases)
    except DataError as error:  # the caller saves what KdError and OSError leave unwritten
        raise KdError(str(error)) from None
    save_student(finished.student, folder.student, tokenizer_folder=tokenizer, card=card)
    report["files"] = {file.name: sha256_of_file(file) for file in sorted(folder.student.iterdir()) if file.name != CARD}
    write_atomically(folder.report, json.dumps(report, indent=1) + "\n")
    return []
