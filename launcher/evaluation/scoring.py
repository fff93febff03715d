"""The numbers of one finished run of a comparison: held-out scores beside the teacher, similarity of layers, and what it cost.

They are kept in the run folder (scores.json), so that a comparison that goes on does not score again. Held-out rows and masks are the
base's, drawn by the run's seed: the same for all variants with that seed.
"""

import json
from pathlib import Path
from typing import Any

from data_shards.storage.manifest import Manifest
from data_shards.stream.stream import Stream
from kd.distributed import process_group
from kd.evaluation.cka import layer_similarity
from kd.evaluation.mlm import evaluate_mlm
from kd.models.encoder import Encoder
from kd.models.loading import load_mlm
from kd.teacher.settings import TeacherSettings
from launcher.config.run_config import RunConfig
from launcher.planning.checks import check_fits
from launcher.run_folder.metrics_file import METRICS, read
from launcher.training.batches import heldout_batches
from stillhouse.files import write_atomically

SCORES = "scores.json"
SAMPLE_TOKENS = 2048  # for the similarity of layers: all states of all layers are held at once


class Scorer:
    """Scores students of one corpus beside one teacher, which is loaded once."""

    def __init__(self, base: RunConfig, windows: int | None) -> None:
        self.base = base
        self.windows = windows
        self.manifest = Manifest.load(base.data.shards)
        self._teacher: Encoder | None = None

    @property
    def teacher(self) -> Encoder | None:
        """The base's teacher, fp32; None where the base has none, or several."""
        if self._teacher is None and isinstance(self.base.teacher, TeacherSettings):
            self._teacher = self._load("teacher", self.base.teacher.model)
        return self._teacher

    def of_run(self, folder: Path, seed: int) -> dict[str, Any]:
        """A finished run's scores and cost, from scores.json if they are there for these windows."""
        path = folder / SCORES
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if kept.get("windows", "none") != self.windows:
            kept = {"windows": self.windows, **self.of_model(str(folder / "student"), seed), **cost(folder)}
            write_atomically(path, json.dumps(kept, indent=1) + "\n")
        return dict(kept)

    def of_teacher(self, folder: Path, seed: int) -> dict[str, Any] | None:
        """The teacher's own scores on the same rows and masks; None where there is none, or several."""
        if not isinstance(self.base.teacher, TeacherSettings):
            return None
        path = folder / f"teacher-seed-{seed}.json"
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if kept.get("windows", "none") != self.windows:
            batches = heldout_batches(self._stream(seed), self.base.evaluate.batch, self.windows)
            assert self.teacher is not None
            kept = {"windows": self.windows, **evaluate_mlm(self.teacher, batches, vocabulary=self.manifest.vocabulary_size).row}
            write_atomically(path, json.dumps(kept, indent=1) + "\n")
        return dict(kept)

    def of_model(self, path: str, seed: int) -> dict[str, Any]:
        """Scores of any model of this corpus: the scores, and `similarity`, linear CKA [student's layers][teacher's layers]."""
        stream, batch = self._stream(seed), self.base.evaluate.batch
        student = self._load("student", path)
        scores = evaluate_mlm(
            student, heldout_batches(stream, batch, self.windows), teacher=self.teacher, vocabulary=self.manifest.vocabulary_size
        )
        values: dict[str, Any] = scores.row | {"similarity": None}
        if self.teacher is not None:
            values["similarity"] = layer_similarity(student, self.teacher, heldout_batches(stream, batch, None), SAMPLE_TOKENS).tolist()
            values["similarity_last"] = values["similarity"][-1][-1]
        return values

    def _stream(self, seed: int) -> Stream:
        return Stream(self.base.data.shards, "heldout", self.base.data.stream.model_copy(update={"seed": seed}), 1)

    def _load(self, role: str, path: str) -> Encoder:
        encoder = load_mlm(path)
        check_fits(role, encoder, self.manifest, self.base.data.stream)
        return encoder.to(process_group.device())


def cost(folder: Path) -> dict[str, Any]:
    """What a finished run took: tokens, updates, seconds (all, and of learning alone), tokens/s of learning, peak memory, size."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    lines = [line for line in read(folder / METRICS) if line["kind"] == "train"]
    seconds = learning_seconds(lines)
    return {
        "updates": report["updates"],
        "trained_tokens": report["tokens"],
        "wall_seconds": report["elapsed_seconds"],
        "learning_seconds": seconds,
        "tokens_per_second": report["tokens"] / max(seconds, 1e-9),
        "memory_gb": max(line["memory_gb"] for line in lines),
        "parameters": report["parameters"],
        "bytes": report["bytes"],
    }


def learning_seconds(lines: list[dict[str, Any]]) -> float:
    """Seconds of learning, evaluation and saving left out: each train line's tokens over its rate."""
    before = 0
    total = 0.0
    for line in lines:
        total += (line["tokens"] - before) / line["tokens_per_second"]
        before = line["tokens"]
    return total
