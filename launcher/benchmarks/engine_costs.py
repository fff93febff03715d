"""Costs of a micro-batch that do not depend on its tokens, and of a step, measured on the engine that trains: DeepSpeed at any ZeRO stage.

A micro-batch of few tokens multiplies almost nothing. It still starts every operation, reads every weight, makes every gradient and adds
it to the sum. Four small models tell layers, weights of layers and weights of the word embeddings apart.
"""

import statistics
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig

from kd.batch import IGNORED, Batch
from kd.distributed import process_group
from kd.models.encoder import Encoder
from kd.models.loading import untrained
from kd.terms.schedules import OptimizerSettings
from kd.training.engine import StudentEngine
from kd.training.settings import TrainSettings
from launcher.benchmarks.rates import clock_of
from launcher.planning.devices.devices import EngineCost
from launcher.planning.devices.gemm import wait

TOKENS = 4
MICRO_BATCHES, UPDATES = 2, 2
FEW, MANY = 2, 4
"""Layers of the models that are timed."""
SMALL = (64, 1000)
SIZES = ((256, 30_522), (640, 30_522))
"""(width, vocabulary). Gradients of the larger table are above what a CPU's allocator keeps, so each one costs its page faults again."""
COMBINATIONS = (("fp32", 0), ("fp32", 1), ("fp32", 2), ("fp32", 3), ("bf16", 1), ("bf16", 2), ("bf16", 3))


class _FewTokens(nn.Module):
    """A student whose loss is the sum of a few logits."""

    def __init__(self, student: Encoder) -> None:
        super().__init__()
        self.student = student

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        hidden = self.student(batch).last_hidden[0]
        logits = F.linear(self.student.transform(hidden), self.student.decoder_weight, self.student.decoder_bias)
        loss = logits.float().mean()
        return loss, loss.detach()[None].double()


def engine_costs(where: torch.device) -> dict[str, EngineCost]:
    """By `precision ZeRO-stage`."""
    return {f"{precision} ZeRO-{stage}": engine_cost(precision, stage, where) for precision, stage in COMBINATIONS}


def engine_cost(precision: str, stage: int, where: torch.device) -> EngineCost:
    """See EngineCost."""
    width, vocabulary = SMALL
    few, many = (_seconds(precision, stage, layers, width, vocabulary, where) for layers in (FEW, MANY))
    by_layer = max(0.0, (many[0] - few[0]) / (MANY - FEW))
    by_table: dict[int, tuple[float, float, float]] = {}
    for width, vocabulary in SIZES:
        a_layer, table = 12 * width * width, vocabulary * width
        less, more = (_seconds(precision, stage, layers, width, vocabulary, where) for layers in (FEW, MANY))
        in_layers = max(0.0, ((more[0] - less[0]) / (MANY - FEW) - by_layer) / a_layer)
        in_table = max(0.0, (less[0] - FEW * (by_layer + a_layer * in_layers)) / table)
        in_step = less[1] / (FEW * a_layer + table)
        by_table[table] = (1e9 * in_layers, 1e9 * in_table, 1e9 * in_step)
    return EngineCost(layer_us=1e6 * by_layer, weight_ns=by_table)


def _seconds(precision: str, stage: int, layers: int, width: int, vocabulary: int, where: torch.device) -> tuple[float, float]:
    """(of a micro-batch, of a step), each the median."""
    sizes: dict[str, Any] = {"num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": 2, "intermediate_size": 4 * width}
    student = untrained(BertConfig(vocab_size=vocabulary, max_position_embeddings=16, **sizes))
    world = process_group.world_size()
    train = TrainSettings(global_batch=MICRO_BATCHES * world, micro_batch=1, updates=1).model_copy(update={"zero_stage": stage})
    module = _FewTokens(student)
    engine = StudentEngine(module, train, OptimizerSettings(), precision, stage=stage)
    ids = torch.arange(TOKENS, device=where)[None]
    batch = Batch(ids, torch.full_like(ids, IGNORED), ids, torch.ones_like(ids), ids[:, 0])
    clock = clock_of(where)
    ahead: list[float] = []
    last: list[float] = []
    for _ in range(UPDATES + 1):
        for _ in range(MICRO_BATCHES):
            ahead.append(_timed(lambda: engine.micro_step(batch), clock, where))
        last.append(_timed(engine.finish_update, clock, where))
    engine.close()
    return statistics.median(ahead[MICRO_BATCHES:]), statistics.median(last[1:])


def _timed(action: Callable[[], object], clock: Callable[[], float], where: torch.device) -> float:
    wait(where)
    started = clock()
    action()
    wait(where)
    return clock() - started
