"""An exported model compared with its original on the same rows: agreement, metric with interval, largest difference of logits."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from data_shards.corpus import Corpus
from data_shards.stream.settings import StreamSettings
from data_shards.stream.stream import Stream
from data_shards.tasks.labels import resolve_labels
from kd.batch import Batch
from kd.export.runtime import AnySession
from kd.models.outputs import EncoderOutputs
from kd.tasks.model import TaskEncoder
from launcher.config.task_config import TaskRunConfig
from launcher.deployment.conversion.batches import real_outputs, run_batch, task_batches
from launcher.deployment.models import DeployedModel
from launcher.errors import LaunchError
from launcher.tasks.build import make_scorer
from launcher.tasks.scores import Outputs, outputs_of, predictions_of
from launcher.tasks.source import TaskSource
from launcher.tasks.teachers import check_length
from launcher.training.batches import heldout_batches

BATCH = 16
SERVED = "rows of like length in batches of {}"
SAMPLE = 128
"""Rows on which the error of the logits is measured."""


@dataclass(frozen=True)
class Quality:
    """rows: compared rows, or masked tokens. agreement: share of equal predictions; None for numbers. original, exported: the metric.

    drop: points of the metric that are lost; negative where the exported model is better. low, high: its 95 % interval.
    """

    data: str
    rows: int
    metric: str
    original: float
    exported: float
    drop: float
    low: float
    high: float
    agreement: float | None
    largest_logit_difference: float
    remark: str = ""
    served: str = SERVED.format(BATCH)


class RuntimeTask(nn.Module):
    """A session with the interface of a TaskEncoder, for kd.tasks' scores. order: as in TaskEncoder. outputs: of its head."""

    def __init__(self, session: AnySession, outputs: int, order: list[int] | None) -> None:
        super().__init__()
        self._device = nn.Parameter(torch.zeros(()))
        self._session, self._order = session, order
        self.hf = SimpleNamespace(config=SimpleNamespace(num_labels=outputs))

    def forward(self, batch: Batch) -> EncoderOutputs:
        """The logits of a batch; hidden states are not given."""
        logits = [torch.from_numpy(value) for value in run_batch(self._session, batch)]
        both = torch.stack(logits, -1) if len(logits) == 2 else logits[0]
        return EncoderOutputs(both, {}, logits=both if self._order is None else both[..., self._order])

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """A session is in eval mode always."""
        yield


Part = Literal["all", "choice", "report"]
"""Rows of a comparison. choice, report: two halves. `--precision auto` chooses on the first, and its loss is that of the second."""
FEWEST_TO_SPLIT = 40


class Comparison(Protocol):
    """The original's outputs on some rows, and the comparison of an exported model with them."""

    def quality(self, exported: AnySession, part: Part = "all") -> Quality:
        """Every figure, on these rows."""

    def error(self, exported: AnySession) -> float:
        """Mean squared difference of the logits on a sample of the rows of "choice", as a share of their variance."""


def part_of(count: int, part: Part) -> NDArray[np.int64]:
    """The indices of a part of so many rows, in order. Raises LaunchError where a half would be too small to say anything."""
    if part == "all":
        return np.arange(count)
    if count < FEWEST_TO_SPLIT:
        raise LaunchError(
            f"auto: expected at least {FEWEST_TO_SPLIT} rows, half to choose on and half to report on, got {count}; "
            "use more rows, or --keep-fp32"
        )
    order = np.random.default_rng(0).permutation(count)
    return np.sort(order[: count // 2] if part == "choice" else order[count // 2 :])


def _data(rows: int, of: int, unit: str, part: Part) -> str:
    """The words for the compared rows."""
    remark = {"all": "", "choice": "", "report": "; the others chose the parts in fp32"}[part]
    return f"{rows} {unit}" if part == "all" else f"{rows} of {of} {unit}{remark}"


class TaskComparison:
    """Compares on a task's development set."""

    def __init__(self, model: DeployedModel, original: AnySession, config: TaskRunConfig, source: TaskSource) -> None:
        """Raises LaunchError for another kind of task than the model's."""
        if config.data.kind != model.purpose:
            raise LaunchError(
                f"--task-config: expected a task of kind {model.purpose}, got {config.data.kind}; choose the model's own task"
            )
        check_length(model.path, model.encoder.max_positions, config)
        self._model, self._resamples = model, config.evaluate.resamples
        self._order = resolve_labels(source.labels, dict(enumerate(model.labels)), {}, model.path) if model.labels else None
        self._scorer = make_scorer(config, source, "dev", model.path)
        self._original = self._outputs(original)
        task, count = self._scorer.task, len(self._scorer.examples)
        chosen = part_of(count, "choice") if count >= FEWEST_TO_SPLIT else np.arange(count)
        self._batches = list(task_batches(task, SAMPLE, BATCH, np.flatnonzero(np.isin(task.examples, chosen))))
        self._original_sample = [real_outputs(original, batch) for batch in self._batches]

    def quality(self, exported: AnySession, part: Part = "all") -> Quality:
        """See Comparison."""
        scorer, metric = self._scorer, self._scorer.deciding
        outputs = [self._original, self._outputs(exported)]
        chosen = part_of(len(scorer.examples), part)
        before, after = (_rows(predictions_of(one, scorer.task, scorer.examples), chosen) for one in outputs)
        labels = _rows(scorer.labels, chosen)
        difference = metric.difference(after, before, labels, self._resamples)
        value, exported_value = (metric.value(predictions, labels) for predictions in (before, after))
        sign = -100 if metric.better == "higher" else 100
        drops = sorted(round(sign * end, 9) + 0.0 for end in (difference.low, difference.high))
        agreement = None
        if self._model.purpose != "regression":
            agreement = float(np.mean([np.array_equal(one, other) for one, other in zip(before, after, strict=True)]))
        largest = max(float(np.abs(a - b).max()) for a, b in zip(outputs[0].logits, outputs[1].logits, strict=True) if a.size)
        drop = round(sign * difference.value, 9) + 0.0  # never -0.0
        constant = "constant_prediction" in scorer.scores(outputs[0]).details
        remark = "the original predicts the same for every row, so this comparison proves nothing" if constant else ""
        data = _data(len(chosen), len(scorer.examples), "rows of dev", part)
        return Quality(data, len(chosen), metric.key, value, exported_value, drop, drops[0], drops[1], agreement, largest, remark)

    def error(self, exported: AnySession) -> float:
        """See Comparison."""
        return _error(zip(self._original_sample, (real_outputs(exported, batch) for batch in self._batches), strict=True))

    def _outputs(self, session: AnySession) -> Outputs:
        encoder = RuntimeTask(session, self._model.encoder.hf.config.num_labels, self._order)
        return outputs_of(cast(TaskEncoder, encoder), self._scorer.task, BATCH)


class ShardsComparison:
    """Compares at the masked tokens of held-out documents, one document in a row. The metric is top-1 accuracy."""

    def __init__(self, model: DeployedModel, original: AnySession, shards: str, windows: int) -> None:
        """Raises LaunchError for another kind of model, and for shards that have no held-out part."""
        if model.purpose != "masked_lm":
            raise LaunchError(f"--shards: expected a masked-language model, got {model.purpose}; give --task-config instead")
        self._original, self._shards, self._windows = original, shards, windows
        corpus = Corpus.open(shards, None)
        if not corpus.manifest.entries("heldout"):
            raise LaunchError(f"{shards}: expected a held-out part, got none; build the shards with --heldout 0.01")
        tokens = min(128, model.encoder.max_positions)
        self._batch = min(BATCH, model.exported.most_rows(tokens))
        self._stream = Stream(corpus, "heldout", StreamSettings(window_tokens=tokens, packing="documents"), 1)

    def quality(self, exported: AnySession, part: Part = "all") -> Quality:
        """See Comparison."""
        right: list[Any] = []
        agreed, largest, total = [], 0.0, 0
        for pair, labels, count in self._pairs(exported, self._windows, part):
            total += count
            if not labels.size:
                continue
            if int(labels.max()) >= pair[0].shape[-1]:
                got = "got ids beyond its vocabulary; build them with it"
                raise LaunchError(f"{self._shards}: expected shards of the model's tokenizer, {got}")
            best = [logits.argmax(-1) for logits in pair]
            right.append(np.stack([guess == labels for guess in best]))
            agreed.append(best[0] == best[1])
            largest = max(largest, float(np.abs(pair[0] - pair[1]).max()))
        if not right:
            raise LaunchError(f"{self._shards}: expected masked tokens in the held-out part, got none; build shards of more text")
        hits = np.concatenate(right, axis=1).astype(float)
        lost = 100 * (hits[0] - hits[1])
        half = 1.96 * lost.std() / np.sqrt(lost.size)
        drop = float(lost.mean())
        value, exported_value = (float(value) for value in hits.mean(axis=1))
        agreement = float(np.concatenate(agreed).mean())
        data = _data(lost.size, total, "masked tokens of held-out documents", part)
        low, high, served = drop - half, drop + half, SERVED.format(self._batch)
        return Quality(data, lost.size, "top1", value, exported_value, drop, low, high, agreement, largest, served=served)

    def error(self, exported: AnySession) -> float:
        """See Comparison."""
        return _error((pair[0], pair[1]) for pair, labels, _ in self._pairs(exported, min(SAMPLE, self._windows), "choice") if labels.size)

    def _pairs(self, exported: AnySession, windows: int, part: Part) -> Iterator[tuple[list[Any], Any, int]]:
        """By batch: logits [N, V] of both models at masked tokens of the part's documents, labels [N], and masked tokens of all documents.

        The halves are every other document.
        """
        first = 0
        for batch in heldout_batches(self._stream, self._batch, windows):
            where = batch.predicted.numpy().copy()
            count, numbers = int(where.sum()), np.arange(first, first + len(where))
            first += len(where)
            if part != "all":
                where[numbers % 2 == (part == "report")] = False
            pair = [run_batch(session, batch)[0][where] for session in (self._original, exported)] if where.any() else []
            yield pair, batch.labels.numpy()[where], count


def _rows(values: Any, indices: NDArray[np.int64]) -> Any:
    """These rows of an array or a list."""
    return values[indices] if isinstance(values, np.ndarray) else [values[index] for index in indices]


def _error(pairs: Iterable[tuple[Any, Any]]) -> float:
    """Mean squared difference of pairs of arrays, as a share of the variance of the first ones."""
    numbers, total, squares, differences = 0, 0.0, 0.0, 0.0
    for before, after in pairs:
        wide = before.astype(np.float64)
        numbers, total, squares = numbers + before.size, total + wide.sum(), squares + np.square(wide).sum()
        differences += float(np.square(wide - after).sum())
    return differences / max(squares - total**2 / max(numbers, 1), 1e-30)
