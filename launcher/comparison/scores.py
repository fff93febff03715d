"""Scores and cost of a comparison's finished runs, kept in files so that a continued comparison does not score again.

A run's are in its folder's scores.json, the teacher's in teacher-seed-N.json of the comparison's folder. The run's seed draws the
held-out rows and masks, so they are the same for all variants with that seed.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kd.teacher.settings import TeacherSettings
from launcher.config.run_config import RunConfig
from launcher.evaluation.scoring import Scorer
from launcher.run_folder.metrics_file import METRICS, read
from stillhouse.files import write_atomically

SCORES = "scores.json"


class RunScores:
    """Scores of the runs of one comparison, against the base's teacher if it has exactly one."""

    def __init__(self, base: RunConfig, windows: int | None) -> None:
        teacher = base.teacher.model if isinstance(base.teacher, TeacherSettings) else None
        self.scorer = Scorer(base.data.shards, base.data.stream, teacher, windows, base.evaluate.batch)

    def of_run(self, folder: Path, seed: int) -> dict[str, Any]:
        """Scores, layer similarity and cost of a finished run."""

        def compute() -> dict[str, Any]:
            student = self.scorer.load("student", str(folder / "student"))
            similarity = self.scorer.similarity(student, seed)
            last = {"similarity_last": similarity[-1][-1]} if similarity is not None else {}
            return {**self.scorer.scores(student, seed).row, "similarity": similarity, **last, **cost(folder)}

        return self._stored(folder / SCORES, compute)

    def of_teacher(self, folder: Path, seed: int) -> dict[str, Any] | None:
        """The teacher's own scores on the same rows and masks; None without a teacher. folder: the comparison's."""

        def compute() -> dict[str, Any]:
            assert self.scorer.teacher is not None
            return self.scorer.scores(self.scorer.teacher, seed, beside_teacher=False).row

        return self._stored(folder / f"teacher-seed-{seed}.json", compute) if self.scorer.teacher_name is not None else None

    def _stored(self, path: Path, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The content of a file of scores of as many windows as are wanted now; computed and written if there is none."""
        stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if stored.get("windows", "none") != self.scorer.windows:
            stored = {"windows": self.scorer.windows, **compute()}
            write_atomically(path, json.dumps(stored, indent=1) + "\n")
        return dict(stored)


def cost(folder: Path) -> dict[str, Any]:
    """The cost of a finished run: tokens, updates, seconds (all, and of learning alone), tokens/s of learning, peak memory, size."""
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
    """Seconds of learning, without evaluation and saving: the sum of each train line's tokens over its rate."""
    before = 0
    total = 0.0
    for line in lines:
        total += (line["tokens"] - before) / line["tokens_per_second"]
        before = line["tokens"]
    return total
