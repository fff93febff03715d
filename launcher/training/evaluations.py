"""Held-out scores of a run: the last ones, the best so far, and when too many evaluations in a row brought nothing better."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from data_shards.stream.stream import Stream
from kd.batch import Batch
from kd.checkpoint import on_disk
from kd.checkpoint.checkpoint import load_state
from kd.distributed import process_group
from kd.errors import KdError
from kd.evaluation.mlm import MlmScores, evaluate_mlm
from kd.models.encoder import Encoder
from launcher.config.run_config import EvaluateSettings
from launcher.process.rank_zero import on_rank_zero
from launcher.training.batches import heldout_batches


class Scores(Protocol):
    """The scores of one evaluation."""

    @property
    def objective(self) -> float:
        """The number that decides which evaluation is best; lower is better."""

    @property
    def line(self) -> dict[str, float]:
        """The numbers of a held-out line: `heldout_loss` and others."""

    @property
    def row(self) -> dict[str, Any]:
        """Everything, for report.json."""


Score = Callable[[Encoder, bool, Callable[[], None]], Scores]
"""(student, whether all of the held-out data, what to call before each batch) -> scores. Collective."""


class Evaluations:
    """One run's evaluations. Every rank has one and calls it alike."""

    def __init__(self, score: Score | None, every_updates: int | None, settings: EvaluateSettings, keep_best: int) -> None:
        """score: None: nothing is held out. every_updates: None: only at the end."""
        self.score = score
        self._every = every_updates
        self._settings = settings
        self._keep_best = keep_best
        self.scores: Scores | None = None
        """Of the weights as they are now; None: not evaluated."""
        self.best = float("inf")
        """The lowest objective among the checkpoints."""
        self.stale = 0
        """Evaluations since the best one."""
        self._lowest = float("inf")

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the run's first lines: one if nothing will be scored."""
        return () if self.score else ("no held-out scores: nothing is held out; build the shards with --heldout 0.01 to have some",)

    def is_due(self, update: int) -> bool:
        """True if the run evaluates after this update."""
        return self._every is not None and update % self._every == 0

    def evaluate(self, student: Encoder, everything: bool, before_batch: Callable[[], None]) -> Scores:
        """Score the student. Collective."""
        assert self.score is not None
        self.scores = self.score(student, everything, before_batch)
        self.stale = 0 if self.scores.objective < self._lowest else self.stale + 1
        self._lowest = min(self._lowest, self.scores.objective)
        return self.scores

    @property
    def is_best(self) -> bool:
        """True if the last scores are the best and a checkpoint of them is to be kept."""
        return self._keep_best > 0 and self.scores is not None and self.scores.objective < self.best

    @property
    def is_stale(self) -> bool:
        """True if `evaluate.patience` evaluations in a row brought no better score."""
        return self._settings.patience is not None and self.stale >= self._settings.patience

    def saved(self, ended: bool) -> None:
        """A checkpoint was written. ended: it is the run's last."""
        if self.scores is not None:
            self.best = min(self.best, self.scores.objective)
        self.scores = self.scores if ended else None

    def as_dict(self) -> dict[str, Any]:
        """The state that a checkpoint stores."""
        values = {"best": self.best, "lowest": self._lowest}
        facts: dict[str, Any] = {key: None if value == float("inf") else value for key, value in values.items()}
        return facts | {"stale": self.stale, "heldout_loss": None if self.scores is None else self.scores.objective}

    def restore(self, facts: dict[str, Any]) -> None:
        """The inverse of as_dict."""
        self.best = float("inf") if facts["best"] is None else facts["best"]
        lowest = facts.get("lowest", facts["best"])
        self._lowest = float("inf") if lowest is None else lowest
        self.stale = facts.get("stale", 0)

    def take_best(self, student: Encoder, checkpoints: Path, done: int) -> int:
        """Give the student the weights of the best checkpoint if `evaluate.keep` is best; the update that they are of.

        Every rank reads the same checkpoint. Forgets the scores of other weights.
        """
        if self._settings.keep != "best":
            return done
        name = process_group.from_rank_zero(on_rank_zero(lambda: _best(checkpoints)) or "")
        if not name or (update := on_disk.read(checkpoints / name).progress.done) == done:
            return done
        device = next(student.parameters()).device
        student.load_weights({key: weight.to(device) for key, weight in load_state(on_disk.read(checkpoints / name)).student.items()})
        self.scores = None
        return update


def _best(checkpoints: Path) -> str:
    """The name of the usable checkpoint with the lowest objective; "" if there is none."""
    scored = []
    for folder in sorted(checkpoints.glob("update-*")):
        try:
            saved = on_disk.read(folder)
            loss = saved.progress.facts.get("heldout_loss")
            if loss is not None:
                saved.verify()
                scored.append((float(loss), folder.name))
        except KdError:
            continue
    return min(scored, default=(0.0, ""))[1]


def heldout_scores(
    encoder: Encoder,
    heldout: Stream,
    vocabulary: int,
    batch: int,
    windows: int | None,
    teacher: Encoder | None = None,
    before_batch: Callable[[], None] = lambda: None,
) -> MlmScores:
    """Scores of an encoder on held-out windows, compared with a teacher if there is one.

    Collective: each rank scores its share of the windows.

    vocabulary: number of real tokens.
    batch: windows per forward pass.
    windows: number over all ranks; None: all of them.
    before_batch: called before each forward pass, as a sign of progress.
    Raises KdError if no position is predicted.
    """

    def batches() -> Iterator[Batch]:
        for rows in heldout_batches(heldout, batch, windows, rank=process_group.rank(), world=process_group.world_size()):
            before_batch()
            yield rows

    return evaluate_mlm(encoder, batches(), teacher, vocabulary, over_ranks=process_group.sum_over_ranks)
