"""Held-out scores of a masked-language model: loss, accuracy, and how far it is from its teacher.

Deterministic: eval mode, no dropout, the batches as they come, sums in float64. The decoder runs over `chunk_tokens` predicted positions
at a time, so that [N, V] never exists whole.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kd.batch import Batch
from kd.errors import KdError
from kd.models.encoder import Encoder


@dataclass(frozen=True)
class MlmScores:
    """Means over the predicted positions.

    loss: nats per token. top1, top5: share of labels that are the first, or among the first five. tokens: how many positions.
    kl: KL(teacher || student) at temperature 1, nats per token. agreement: share of positions with the teacher's first choice.
    """

    loss: float
    top1: float
    top5: float
    tokens: int
    kl: float | None = None
    agreement: float | None = None


def evaluate_mlm(
    encoder: Encoder,
    batches: Iterable[Batch],
    teacher: Encoder | None = None,
    vocabulary: int | None = None,
    chunk_tokens: int = 2048,
    over_ranks: Callable[[Tensor], Tensor] | None = None,
) -> MlmScores:
    """The scores of an encoder on held-out batches, beside a teacher if there is one.

    vocabulary: the real one, both heads are cut to it; None: the smaller of the two heads'. over_ranks: sums a float64 tensor over ranks
    that each bring batches of their own (kd.distributed.process_group.sum_over_ranks).
    Raises KdError when nothing is predicted, or a label is not in the vocabulary.
    """
    size = vocabulary or min(model.vocabulary for model in (encoder, teacher) if model is not None)
    sums = torch.zeros(6, dtype=torch.float64)  # tokens, loss, top1, top5, kl, agreement
    with torch.no_grad(), ExitStack() as modes:
        for model in (encoder, teacher):
            if model is not None:
                modes.enter_context(_in_eval(model))
        for batch in batches:
            labels = batch.labels[batch.predicted]
            if labels.numel() and int(labels.max()) >= size:
                raise KdError(
                    f"evaluate: expected labels below {size}, the vocabulary of both heads, got {int(labels.max())}; "
                    "use shards of this model's tokenizer"
                )
            ours = _predicted_states(encoder, batch)
            theirs = None if teacher is None else _predicted_states(teacher, batch)
            for start in range(0, labels.numel(), chunk_tokens):
                chunk = slice(start, start + chunk_tokens)
                logits = _logits(encoder, ours[chunk], size)
                teaching = None if teacher is None or theirs is None else _logits(teacher, theirs[chunk], size)
                sums += _sums(logits, labels[chunk], teaching)
    if over_ranks is not None:
        sums = over_ranks(sums)
    return _scores(sums, with_teacher=teacher is not None)


def retention(student: MlmScores, teacher: MlmScores) -> float:
    """The student's top-1 accuracy as a share of the teacher's (1 is as good)."""
    return student.top1 / teacher.top1 if teacher.top1 > 0 else float("nan")


def _predicted_states(model: Encoder, batch: Batch) -> Tensor:
    """[N, D] on the model's device: the head's transform at the predicted positions."""
    on_device = batch.to(model.decoder_weight.device)
    return model.transform(model(on_device).last_hidden[on_device.predicted])


def _logits(model: Encoder, transformed: Tensor, vocabulary: int) -> Tensor:
    """[n, D] -> [n, vocabulary] fp32."""
    return F.linear(transformed, model.decoder_weight[:vocabulary], model.decoder_bias[:vocabulary]).float()


def _sums(logits: Tensor, labels: Tensor, teacher_logits: Tensor | None) -> Tensor:
    """[6] float64 on the CPU: tokens, loss, top1, top5, kl, agreement summed over a chunk. logits [n, V], labels [n]."""
    labels = labels.to(logits.device)
    log_probs = F.log_softmax(logits, dim=-1)
    first = logits.argmax(dim=-1)
    five = logits.topk(min(5, logits.shape[-1]), dim=-1).indices
    top1, top5 = (first == labels).sum(), (five == labels[:, None]).sum()
    loss = -log_probs.gather(1, labels[:, None]).double().sum()
    parts = [torch.tensor(float(len(labels))), loss, top1, top5, torch.zeros(()), torch.zeros(())]
    if teacher_logits is not None:
        teacher_log_probs = F.log_softmax(teacher_logits.to(logits.device), dim=-1)
        parts[4] = F.kl_div(log_probs, teacher_log_probs, reduction="none", log_target=True).sum(dim=-1).double().sum()
        parts[5] = (teacher_log_probs.argmax(dim=-1) == first).sum()
    return torch.stack([part.detach().double().cpu() for part in parts])


def _scores(sums: Tensor, with_teacher: bool) -> MlmScores:
    tokens, loss, top1, top5, kl, agreement = sums.tolist()
    if tokens == 0:
        raise KdError("evaluate: expected held-out windows with predicted positions, got none; use shards with a held-out part")
    return MlmScores(
        loss=loss / tokens,
        top1=top1 / tokens,
        top5=top5 / tokens,
        tokens=int(tokens),
        kl=kl / tokens if with_teacher else None,
        agreement=agreement / tokens if with_teacher else None,
    )


@contextmanager
def _in_eval(model: Encoder) -> Iterator[None]:
    """The model in eval mode meanwhile."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
