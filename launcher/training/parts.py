"""The objects of a run on any data. Their builder knows the data, and the loop does not."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from kd.batch import Batch
from kd.checkpoint.on_disk import Checkpoint
from kd.distributed.rank_progress import RankProgress
from kd.models.encoder import Encoder
from kd.terms import layer_map
from kd.terms.layer_map import LayerMaps
from kd.training.phases import Phase
from kd.training.trainer import Trainer
from launcher.config.run_config import AnyRunConfig
from launcher.reporting.layer_similarity import Similarities
from launcher.run_folder.folder import RunFolder
from launcher.training.diagnostics.guesses import Samples
from launcher.training.diagnostics.similarity import Similarity
from launcher.training.evaluations import Score, Scores


@dataclass(frozen=True)
class TrainingData:
    """The data of a run, opened but not used yet.

    contents: name of a setting -> digest of the content that it names. All ranks must have the same.
    described: counts and digests of the data, for environment.json.
    build: makes the objects of the run, which continue from the checkpoint if there is one. Collective.
    """

    contents: Mapping[str, str]
    build: Callable[[Checkpoint | None, RankProgress | None], "RunParts"]
    described: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Finished:
    """A run at its end."""

    config: AnyRunConfig
    folder: RunFolder
    student: Encoder
    scores: Scores | None
    facts: dict[str, int]
    """updates, skipped_updates, tokens, and best_update where an earlier checkpoint was taken."""
    seconds: float
    precision: str
    phases: Sequence[Phase]


BY_ROW, BY_MICRO_BATCH = "by_row", "by_micro_batch"
"""Masks of dropout are those of kd.kernels.dropout (on CPUs), or those of torch's generator, which a micro-batch seeds."""


def dropout_of(saved: Mapping[str, Any] | None) -> str:
    """The kind of dropout of a run. saved: the facts of the checkpoint that is continued; earlier versions did not name it."""
    return BY_ROW if saved is None else str(saved.get("dropout", BY_MICRO_BATCH))


@dataclass(frozen=True)
class Attention:
    """The attention implementations of a run. teachers: by their precision. reason: of the student's."""

    student: str
    teachers: Mapping[str, str]
    reason: str

    @property
    def facts(self) -> dict[str, Any]:
        """The part that a checkpoint keeps."""
        return {"student": self.student, "teachers": dict(self.teachers)}


@dataclass(frozen=True)
class RunParts:
    """The objects of a run."""

    trainer: Trainer
    stream: Any
    """The training data: a Stream, or what has its methods."""
    to_batch: Callable[[Any, int], Batch]
    """(rows of the stream, update) -> tensors."""
    score: Score | None
    """None: nothing is held out."""
    evaluate_every: int | None
    updates: int
    precision: str
    precision_reason: str
    attention: Attention
    dropout: str
    """BY_ROW or BY_MICRO_BATCH."""
    layer_maps: LayerMaps
    """The pairs that `layer_map: cka` stands for."""
    similarities: Similarities
    """The layer similarities that they were read from: on rank 0 of a new run."""
    student: dict[str, Any]
    """The student's model configuration and the layers it was copied from: a checkpoint keeps them."""
    write: Callable[[Finished], list[str]]
    """Writes the finished student and report.json; gives remarks on its scores. Rank 0 calls it."""
    largest: Callable[[], Sequence[Batch]]
    """The largest micro-batches of one update of this rank."""
    similarity: Similarity | None = None
    """The similarity of the student's layers with the teacher's; None: not measured."""
    samples: Samples | None = None
    """Masked sentences with the guesses of teacher and student; None: there are none."""
    notes: Sequence[str] = ()
    """Sentences about what was built, for the start of a new run."""

    @property
    def head(self) -> str | None:
        """The vocabulary head's ways to compute the terms, of all phases (kd.objective.fused_head); None: there is one way.

        On a GPU, the first question compiles the kernel and compares it.
        """
        trainer = self.trainer
        if not trainer.vocabulary:
            return None
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        ways = [objective.head_way(dtype, trainer.device) for objective in trainer.objectives]
        return "; ".join(dict.fromkeys(way for way in ways if way)) or None

    @property
    def ways(self) -> list[str]:
        """The ways in which this process computes, as sentences for the start of a run, new or continued."""
        trainer = self.trainer
        ways = [f"vocabulary head: {self.head}"] if self.head else []
        if trainer.compiled:
            ways.append(f"train.compile: {', '.join(trainer.compiled)}; the first update takes seconds to minutes longer")
        return ways

    @property
    def facts(self) -> dict[str, Any]:
        """The part of them that a checkpoint keeps."""
        made = {"precision": self.precision, "attention": self.attention.facts, "dropout": self.dropout}
        return {"layer_maps": layer_map.to_json(self.layer_maps), "student": self.student} | made
