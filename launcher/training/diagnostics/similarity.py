"""Similarity of the student's layers with the teacher's during a run: linear CKA on held-out windows.

Every rank passes the same windows through the teacher, because a split teacher needs all ranks. Rank 0 passes them through the student and
computes. So the values do not depend on the number of ranks. Nothing here draws a random number.
"""

from collections.abc import Callable, Sequence

import torch

from data_shards.stream.stream import Stream
from kd.batch import Batch
from kd.distributed import process_group
from kd.evaluation.cka import MinibatchCka
from kd.models.capture import capture
from kd.models.compiled_layers import plain_layers
from kd.models.encoder import Encoder
from kd.models.states import StateKey
from kd.teacher.teacher import Teacher
from launcher.training.batches import heldout_batches

ROWS, BATCHES, TOKENS = 8, 8, 512
"""Windows of a minibatch, minibatches, and the most tokens of a minibatch that are compared."""
LEAST_TOKENS = 16
KEY, LAYER_KEY = "cka", "cka_layer"
Similarity = Callable[[Encoder, Callable[[], None]], tuple[dict[str, float], torch.Tensor | None]]
"""(student, what to call before each minibatch) -> numbers of a train line and the table [S, T], on rank 0. Collective."""


def similarity_to(teacher: Teacher, heldout: Stream) -> Similarity:
    """The similarity of a student to a teacher that computes its layers."""
    wanted = frozenset(StateKey("hidden", layer) for layer in range(teacher.layers))

    def measure(student: Encoder, before_batch: Callable[[], None]) -> tuple[dict[str, float], torch.Tensor | None]:
        cka, used = MinibatchCka(), 0
        for batch in _minibatches(heldout):
            before_batch()
            on_device = batch.to(process_group.device())
            with plain_layers():
                theirs = teacher(on_device, torch.zeros_like(on_device.real), wanted).states
            chosen = _chosen(on_device)
            if process_group.rank() == 0 and len(chosen) >= LEAST_TOKENS:
                used += 1
                cka.add(
                    _features(student, on_device, chosen),
                    [theirs[StateKey("hidden", n)][on_device.real][chosen] for n in range(teacher.layers)],
                )
        return (_numbers(cka), cka.values) if used else ({}, None)

    return measure


def _numbers(cka: MinibatchCka) -> dict[str, float]:
    """`cka/S`: the highest similarity of student layer S. `cka_layer/S`: the teacher layer that has it."""
    highest, layers = cka.values.max(1)
    values = {f"{KEY}/{layer}": value for layer, value in enumerate(highest.tolist())}
    return values | {f"{LAYER_KEY}/{layer}": float(number) for layer, number in enumerate(layers.tolist())}


def _minibatches(heldout: Stream) -> Sequence[Batch]:
    """The first held-out windows. The same on every rank."""
    return [batch for _, batch in zip(range(BATCHES), heldout_batches(heldout, ROWS, None), strict=False)]


def _chosen(batch: Batch) -> torch.Tensor:
    """Numbers of the real tokens that are compared: at even distances."""
    count = int(batch.real.sum())
    return torch.arange(min(count, TOKENS), device=batch.real.device) * count // max(1, min(count, TOKENS))


def _features(student: Encoder, batch: Batch, chosen: torch.Tensor) -> list[torch.Tensor]:
    """[n, D] of each layer."""
    keys = [StateKey("hidden", layer) for layer in range(student.layers)]
    with torch.no_grad(), student.evaluating():
        states = capture(student, batch, frozenset(keys)).states
    return [states[key][batch.real][chosen] for key in keys]
