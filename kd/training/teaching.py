"""The distance of the student from its teacher on masked tokens of an update, at temperature 1: for reports.

The outputs of both exist for the loss, so only the heads run once more, over a few tokens. Nothing of the update changes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from kd.copies import moved, positions_of
from kd.evaluation.scores import BANDS
from kd.models.outputs import EncoderOutputs
from kd.objective.selection import Selection
from kd.objective.teacher_outputs import LogitRequest, TeacherOutputs
from kd.terms.base import LogitTerm

ROWS = 8
"""The first rows of the update's global batch are looked at, on the ranks that have them: the same for any number of ranks."""
NUMBERS = ("agreement", "kl", "entropy", "teacher_entropy", "masked_loss", "masked_top1")
"""Keys in a train line, in the order of `numbers_of`."""
SHARES = (0.5, 0.9)
"""The shares of the corpus at which a band ends."""


def bands_of(counts: Tensor) -> Tensor:
    """[V] counts of each token -> [V] int64 numbers of its band.

    The most frequent tokens, half of the text, are common. The next ones, up to 90 % of the text, are in the middle.
    """
    order = counts.double().argsort(descending=True, stable=True)
    before = counts.double()[order].cumsum(0) - counts.double()[order]  # tokens of the text that are more frequent
    shares = before / counts.double().sum().clamp(min=1)
    bands = torch.empty(len(counts), dtype=torch.int64)
    bands[order] = sum((shares >= share).long() for share in SHARES)
    return bands


def request_of(terms: Sequence[LogitTerm], teachers: int) -> LogitRequest | None:
    """The teacher's logits to compare with, of the first term that has any; None: no term has any."""
    for term in terms:
        if term.required_outputs:
            return LogitRequest(0) if teachers == 1 else LogitRequest(term.teacher)
    return None


def numbers_of(logits: Tensor, taught: Tensor, labels: Tensor) -> Tensor:
    """[6, n] fp32, in the order of NUMBERS. logits, taught: [n, V] fp32 of student and teacher. labels: [n] int64.

    KL(p || q) is the cross-entropy of p and q without the entropy of p, so three passes over [n, V] are enough.
    """
    log_q, log_p = logits.log_softmax(dim=-1), taught.log_softmax(dim=-1)
    guess, p = logits.argmax(dim=-1), log_p.exp()
    teacher_entropy = -torch.einsum("nv,nv->n", p, log_p)
    kl = -torch.einsum("nv,nv->n", p, log_q) - teacher_entropy
    entropy = -torch.einsum("nv,nv->n", log_q.exp(), log_q)
    loss = -log_q.gather(1, labels[:, None])[:, 0]
    return torch.stack([(guess == taught.argmax(dim=-1)).float(), kl, entropy, teacher_entropy, loss, (guess == labels).float()])


class Teaching:
    """Sums over the masked tokens of an update, on one rank. bands: see `bands_of`."""

    def __init__(self, bands: Tensor | None = None, device: torch.device | str = "cpu") -> None:
        self._bands = bands
        self.sums = torch.zeros(1 + len(NUMBERS) + 2 * len(BANDS), dtype=torch.float64, device=device)
        """Tokens, each number, and tokens and KL of each band."""

    @torch.no_grad()
    def add(self, student: EncoderOutputs, teachers: TeacherOutputs, selection: Selection, terms: Sequence[LogitTerm]) -> None:
        """Count one micro-batch. Outputs of a task's head are passed over."""
        request = request_of(terms, len(teachers.weights))
        if request is None or student.transformed is None or student.decoder is None:
            return
        host, (row, column) = selection.host, selection.logits_mask.nonzero(as_tuple=True)
        looked = host.predicted[row, column] & (row + host.first_slot < ROWS)
        if not looked.any():
            return
        (at,) = positions_of(looked, selection.device)
        (taught,) = teachers.logits([request], at)
        assert taught is not None
        labels = selection.labels[at]
        values = numbers_of(student.decoder.logits(student.transformed.detach()[at]), taught, labels).double()
        self.sums[0] += len(at)
        self.sums[1 : 1 + len(NUMBERS)] += values.sum(1)
        if self._bands is not None:
            bands = moved(self._bands, labels.device)[labels]
            of_bands = values.new_zeros(2, len(BANDS))
            of_bands.index_add_(1, bands, torch.stack([torch.ones_like(values[0]), values[NUMBERS.index("kl")]]))
            self.sums[-2 * len(BANDS) :] += of_bands.flatten()

    @staticmethod
    def means(sums: Sequence[float]) -> dict[str, float]:
        """Means per token from the values of `sums`, added over ranks. A number without tokens is left out."""
        tokens, *rest = sums
        if not tokens:
            return {}
        counts, totals = rest[len(NUMBERS) : -len(BANDS)], rest[-len(BANDS) :]
        means = {key: total / tokens for key, total in zip(NUMBERS, rest[: len(NUMBERS)], strict=True)}
        return means | {f"kl/{band}": total / count for band, count, total in zip(BANDS, counts, totals, strict=True) if count}
