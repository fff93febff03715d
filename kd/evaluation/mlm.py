"""Held-out scores of a masked-language model: loss, accuracy, and how far it is from its teacher.

Deterministic: eval mode, no dropout, the batches as they come, sums in float64. The device is read once, at the end. The decoder runs over
`chunk_tokens` predicted positions at a time, so that [N, V] never exists whole.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kd.batch import Batch
from kd.copies import moved, positions_of
from kd.errors import KdError
from kd.evaluation.scores import SCORES, Predictions, Score
from kd.models.encoder import Encoder


@dataclass(frozen=True)
class MlmScores:
    """Means over the predicted positions. tokens: the number of positions. values: by the keys of kd.evaluation.scores.SCORES.

    A score that needs a teacher is None without one.
    """

    tokens: int
    values: dict[str, float | None]

    def __getitem__(self, key: str) -> float:
        value = self.values[key]
        assert value is not None, key
        return value

    @property
    def objective(self) -> float:
        """The number that decides which evaluation is best: the loss."""
        return self["loss"]

    @property
    def line(self) -> dict[str, float]:
        """The numbers of a run's held-out line."""
        return {f"heldout_{score.key}": self[score.key] for score in SCORES if score.during_runs}

    @property
    def row(self) -> dict[str, Any]:
        """All scores and the number of positions, for tables and JSON."""
        return {**self.values, "tokens": self.tokens}


def evaluate_mlm(
    encoder: Encoder,
    batches: Iterable[Batch],
    teacher: Encoder | None = None,
    vocabulary: int | None = None,
    chunk_tokens: int = 2048,
    over_ranks: Callable[[Tensor], Tensor] | None = None,
) -> MlmScores:
    """The scores of an encoder on held-out batches, compared with a teacher if there is one.

    vocabulary: the number of real tokens, to which both heads are cut; None: the smaller of the two heads' sizes.
    over_ranks: sums a float64 tensor over ranks that each have batches of their own (kd.distributed.process_group.sum_over_ranks).
    Raises KdError when nothing is predicted, or a label is not in the vocabulary.
    """
    size = vocabulary or min(model.vocabulary for model in (encoder, teacher) if model is not None)
    used = [score for score in SCORES if teacher is not None or not score.needs_teacher]
    device = encoder.decoder_weight.device
    sums = torch.zeros(1 + len(used), dtype=torch.float64, device=device)  # tokens, then each score
    with torch.no_grad(), ExitStack() as modes:
        for model in (encoder, teacher):
            if model is not None:
                modes.enter_context(model.evaluating())
        for batch in batches:
            host = batch.on_host
            known = host.labels[host.predicted]
            if known.numel() and int(known.max()) >= size:
                raise KdError(
                    f"evaluate: expected labels below {size}, the vocabulary of both heads, got {int(known.max())}; "
                    "use shards of this model's tokenizer"
                )
            labels = moved(known, device)
            ours = _predicted_states(encoder, host)
            theirs = None if teacher is None else _predicted_states(teacher, host)
            for start in range(0, labels.numel(), chunk_tokens):
                chunk = slice(start, start + chunk_tokens)
                logits = _logits(encoder, ours[chunk], size)
                teaching = None if teacher is None or theirs is None else _logits(teacher, theirs[chunk], size)
                sums += _sums(used, logits, labels[chunk], teaching)
    if over_ranks is not None:
        sums = over_ranks(sums)
    tokens, *totals = sums.tolist()
    if tokens == 0:
        raise KdError("evaluate: expected held-out windows with predicted positions, got none; use shards with a held-out part")
    means = {score.key: total / tokens for score, total in zip(used, totals, strict=True)}
    return MlmScores(int(tokens), {score.key: means.get(score.key) for score in SCORES})


def _predicted_states(model: Encoder, host: Batch) -> Tensor:
    """[N, D] on the model's device: the head's transform at the predicted positions. host: a batch on the CPU."""
    device = model.decoder_weight.device
    return model.transform(model(host.to(device)).last_hidden[positions_of(host.predicted, device)])


def _logits(model: Encoder, transformed: Tensor, vocabulary: int) -> Tensor:
    """[n, D] -> [n, vocabulary] fp32."""
    return F.linear(transformed, model.decoder_weight[:vocabulary], model.decoder_bias[:vocabulary]).float()


def _sums(scores: Sequence[Score], logits: Tensor, labels: Tensor, teacher_logits: Tensor | None) -> Tensor:
    """[1 + scores] float64 on the logits' device: tokens, and each score summed over a chunk. logits [n, V], labels [n]."""
    teaching = None if teacher_logits is None else F.log_softmax(teacher_logits.to(logits.device), dim=-1)
    predictions = Predictions(logits, F.log_softmax(logits, dim=-1), labels, teaching)
    totals = [score.values(predictions).double().sum() for score in scores]
    return torch.stack([torch.full_like(totals[0], len(labels)), *totals]).detach()
