"""Held-out scores of a masked-language model. A score is a function and its row in SCORES; reports and tables follow from the row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stillhouse.lazy import lazy_module

if TYPE_CHECKING:
    import torch.nn.functional as F
    from torch import Tensor
else:
    F = lazy_module("torch.nn.functional")


@dataclass(frozen=True)
class Predictions:
    """n predicted positions. logits [n, V] fp32 and their log_probs; labels [n] int64; teacher_log_probs [n, V], None without a teacher."""

    logits: Tensor
    log_probs: Tensor
    labels: Tensor
    teacher_log_probs: Tensor | None = None

    @property
    def teacher(self) -> Tensor:
        """The teacher's log-probabilities, where there is one."""
        assert self.teacher_log_probs is not None
        return self.teacher_log_probs


@dataclass(frozen=True)
class Score:
    """One score: the mean over positions of `values`. key: its name in rows and JSON. form: how it is written. meaning: for legends.

    during_runs: runs report it as heldout_KEY. compared: comparisons have a column for it.
    """

    key: str
    heading: str
    values: Callable[[Predictions], Tensor]
    form: str = ".3f"
    more_is_better: bool = True
    meaning: str = ""
    needs_teacher: bool = False
    during_runs: bool = False
    compared: bool = True

    def text(self, value: float | None) -> str:
        """The score as text; empty where there is none."""
        return "" if value is None else format(value, self.form)


def loss(predictions: Predictions) -> Tensor:
    """Cross-entropy of the labels, nats [n]."""
    return -predictions.log_probs.gather(1, predictions.labels[:, None])[:, 0]


def top1(predictions: Predictions) -> Tensor:
    """[n] bool: the label is the first choice."""
    return predictions.logits.argmax(dim=-1) == predictions.labels


def top5(predictions: Predictions) -> Tensor:
    """[n] bool: the label is among the first five choices."""
    five = predictions.logits.topk(min(5, predictions.logits.shape[-1]), dim=-1).indices
    return (five == predictions.labels[:, None]).any(dim=-1)


def kl(predictions: Predictions) -> Tensor:
    """KL(teacher || student) at temperature 1, nats [n]."""
    return F.kl_div(predictions.log_probs, predictions.teacher, reduction="none", log_target=True).sum(dim=-1)


def agreement(predictions: Predictions) -> Tensor:
    """[n] bool: the student's first choice is the teacher's."""
    return predictions.teacher.argmax(dim=-1) == predictions.logits.argmax(dim=-1)


SCORES = (
    Score(
        "loss",
        "loss",
        loss,
        more_is_better=False,
        meaning="cross-entropy in nats per masked token; less is better",
        during_runs=True,
    ),
    Score("top1", "top-1", top1, ".1%", meaning="masked tokens whose first guess is right", during_runs=True),
    Score("top5", "top-5", top5, ".1%", meaning="masked tokens with the right one among five guesses", during_runs=True, compared=False),
    Score("agreement", "agrees", agreement, ".1%", meaning="masked tokens with the teacher's first guess", needs_teacher=True),
    Score("kl", "KL", kl, more_is_better=False, meaning="nats from the teacher's distribution; 0 is equal", needs_teacher=True),
)
BANDS = ("common", "middle", "rare")
"""Bands of tokens by their frequency in the corpus (kd/training/teaching.py)."""
RETAINED = "top-1 as a share of the teacher's"
"""The meaning of retention in legends."""


def retention(student_top1: float, teacher_top1: float | None) -> float | None:
    """The student's top-1 accuracy as a share of the teacher's (1 is as good). None without a teacher, or with one at 0."""
    return student_top1 / teacher_top1 if teacher_top1 else None
