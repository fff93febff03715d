"""The teachers of a task run: labels matched by name, scores on dev, and outputs that are computed once and found by content."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_shards.errors import DataError
from data_shards.tasks.encoding.encoded import EncodedTask
from data_shards.tasks.labels import resolve_labels
from kd.distributed import process_group
from kd.models.config import read_config
from kd.models.loading import weights_digest
from kd.tasks.cached_outputs import FORMAT, CachedOutputs, digest_of, read_outputs, write_outputs
from kd.tasks.loading import labels_of_model, load_task, untrained_task
from kd.tasks.model import TaskEncoder
from kd.teacher.hidden_state_cache import DTYPES
from kd.teacher.modes import MODES
from kd.teacher.teacher import FrozenEncoder, Teacher
from kd.teacher.teachers import Teachers
from launcher.config.task_config import TaskRunConfig
from launcher.errors import LaunchError
from launcher.process.standard_streams import say
from launcher.process.steps import step
from launcher.tasks.caching import Caching
from launcher.tasks.outputs import FlatOutputs, begins_of, flat_outputs
from launcher.tasks.scores import TaskScorer, check_finite
from launcher.tasks.source import TaskSource
from launcher.text import duration, size
from stillhouse.digests import canonical_sha256
from stillhouse.files import cache_folder, sha256_of_file

BATCH = 64
"""Rows of a forward pass whose outputs are kept. A constant: the values must not depend on a setting that a continued run may change."""
FOLDER = "teacher-outputs"
SHOWN_SECONDS = 10.0


class TaskTeachers:
    """The teachers by number. A teacher's weights are loaded when they are needed first: not at all where a file has its outputs."""

    def __init__(
        self, config: TaskRunConfig, source: TaskSource, precision: str, touch: Callable[[], None], attention: Mapping[str, str]
    ) -> None:
        """touch: says that this rank is alive. attention: the implementation by a teacher's precision.

        Raises DataError, KdError or LaunchError for labels or lengths that do not fit.
        """
        self.attention = attention
        self.config, self.source, self.precision, self._touch = config, source, precision, touch
        self.members = list(config.members.items())
        self._whole: dict[int, TaskEncoder] = {}
        self._digests: dict[int, str] = {}
        self._orders = [self._order(number) for number in range(len(self.members))]
        self._shapes = [self._shape(number) for number in range(len(self.members))]
        self.notes: list[str] = []

    def whole(self, number: int) -> TaskEncoder:
        """Teacher `number`, fp32, on the CPU, its logits in the task's order of labels."""
        if number not in self._whole:
            place, member = self.members[number]

            def order(where: str, names: list[str]) -> list[int]:
                return resolve_labels(self.source.labels, dict(enumerate(names)), member.label_map, where, f"{place}.label_map")

            self._whole[number] = load_task(member.model, self.config.data.kind, order)
        return self._whole[number]

    def scores(self, number: int, scorer: TaskScorer) -> dict[str, Any]:
        """A teacher's scores on dev. Raises LaunchError for one that is no better than a constant prediction. Collective."""
        place, member = self.members[number]
        outputs = self._outputs(number, scorer.task, "fp32", keep=member.cache_outputs is not False).by_row(scorer.task)
        check_finite(f"{place}.model", outputs)
        scores = scorer.scores(outputs, self.config.evaluate.resamples)
        key = scorer.deciding.key
        value, constant = scores.values[key], scorer.constant[key]
        if value <= constant and not member.allow_untrained:
            raise LaunchError(
                f"{place}.model: expected a teacher better than a constant prediction on dev ({key} {constant:.3f}), got {value:.3f}; "
                f"fine-tune it first (stillhouse task train), or set {place}.allow_untrained: true"
            )
        return scores.row

    def made(
        self, caching: Sequence[Caching], rows: Sequence[EncodedTask], saved: Sequence[str | None] | None
    ) -> tuple[Teachers, list[str | None]]:
        """The teachers as the trainer uses them, and the digest of each one's kept outputs (None: none are kept). Collective.

        caching: by teacher. rows: the training rows as each teacher reads them. saved: the digests of the checkpoint of a continued run,
        which does what it began with.
        """
        made: list[Teacher] = []
        digests: list[str | None] = []
        for number, (place, member) in enumerate(self.members):
            decision, task, precision = caching[number], rows[number], member.precision or self.precision
            before = saved[number] if saved is not None and number < len(saved) else None
            kept = before is not None
            if saved is None:
                kept = decision.cached or (decision.if_present and self._found(number, task, precision) is not None)
            flat = self._outputs(number, task, precision, keep=True) if kept else None
            digests.append(None if flat is None else digest_of(flat.values))
            computing = self._computing(number, precision) if flat is None or decision.computes else None
            if flat is None:
                assert computing is not None
                made.append(computing)
                continue
            if not torch.isfinite(flat.values).all():
                check_finite(f"{place}.model", flat.by_row(task))
            if before not in (None, digests[-1]) and process_group.rank() == 0:
                say(f"{place}: its outputs were computed anew, and differ in rounding from those that the run began with")
            made.append(CachedOutputs(self._shapes[number], flat.values, begins_of(task), computing))
            file = self._file(number, task, precision)
            self.notes.append(f"{place}: its outputs on {len(task):,} rows ({size(flat.values.nbytes)}) are in {file}")
        self._whole.clear()
        weights = [member.weight for _, member in self.members] or (1.0,)
        return Teachers(made, weights, self.config.teacher_mixing, self.config.train.seed), digests

    def _computing(self, number: int, precision: str) -> Teacher:
        """The teacher that runs its forward pass, in its mode. It owns the model."""
        _, member = self.members[number]
        mode = MODES[member.mode]
        mode.check(member.model, read_config(member.model), process_group.world_size())
        model = self._cast(number, precision)
        del self._whole[number]
        return mode.make(FrozenEncoder(model), member, process_group.device())

    def _cast(self, number: int, precision: str) -> TaskEncoder:
        """Teacher `number` with weights of this precision, and the attention that goes with it."""
        model = self.whole(number)
        for weight in model.parameters():  # not .to(dtype): from_pretrained keeps buffers in fp32
            weight.data = weight.data.to(DTYPES[precision])
        model.use_attention(self.attention[precision])
        return model

    def _outputs(self, number: int, task: EncodedTask, precision: str, keep: bool) -> FlatOutputs:
        """A teacher's outputs on all rows of a split: from a file, or computed, and then written. Collective.

        keep: use files. A file that cannot be written is said, and the outputs stay in memory.
        """
        place, _ = self.members[number]
        found = self._found(number, task, precision) if keep else None
        if found is not None:
            return found
        model = self._cast(number, precision)
        with step(f"{place}: computing its outputs on {len(task):,} rows of {task.split}"):
            progress = _Progress(place, task, process_group.world_size())
            flat = flat_outputs(model.to(process_group.device()), task, BATCH, self._touch, progress)
        model.to("cpu")
        if precision != "fp32":
            del self._whole[number]  # its weights are rounded
        if keep and process_group.rank() == 0:
            file = self._file(number, task, precision)
            try:
                write_outputs(file, flat.values, {"loss": flat.loss})
            except OSError as error:
                say(f"{file}: the outputs of {place} could not be written ({error.strerror or error}); they are kept in memory")
        return flat

    def _found(self, number: int, task: EncodedTask, precision: str) -> FlatOutputs | None:
        """The outputs in a teacher's file; None without a file, and for a damaged one, which is said. Collective."""
        file, read = self._file(number, task, precision), None
        with suppress(FileNotFoundError):
            read = read_outputs(file)
            if isinstance(read, str):
                say(f"{read}; they are computed anew")
        flat = None if read is None or isinstance(read, str) else FlatOutputs(read[0], read[1].get("loss", float("nan")))
        shape = (int(begins_of(task)[-1]), self.source.columns)
        if flat is not None and tuple(flat.values.shape) != shape:
            flat = None
        world, rank = process_group.world_size(), process_group.rank()
        if world == 1:
            return flat
        there = torch.tensor([flat is not None, flat is not None and rank == 0], dtype=torch.float64, device=process_group.device())
        count, first = process_group.sum_over_ranks(there).tolist()
        if count == world or not first:
            return flat if count == world else None
        loss = torch.tensor([flat.loss if flat is not None and rank == 0 else 0.0], dtype=torch.float64, device=process_group.device())
        values = flat.values.clone() if flat is not None and rank == 0 else torch.zeros(shape)  # another host's disk lacks the file
        values = process_group.sum_over_ranks(values.to(process_group.device())).cpu()
        return FlatOutputs(values, float(process_group.sum_over_ranks(loss)))

    def _file(self, number: int, task: EncodedTask, precision: str) -> Path:
        """The file of a teacher's outputs on these rows: named after the weights, the rows as ids, the precision and the labels' order."""
        facts = [FORMAT, self._weights(number), task.digest(), self._orders[number], precision]
        return cache_folder() / FOLDER / f"{canonical_sha256(facts, ascii_only=True)[:40]}.safetensors"

    def _weights(self, number: int) -> str:
        """A digest of a teacher's configuration and weights: of the files of a folder, without loading them."""
        if number not in self._digests:
            folder = Path(self.members[number][1].model).expanduser()
            if folder.is_dir():
                files = sorted(path for path in folder.iterdir() if path.name == "config.json" or path.suffix in (".safetensors", ".bin"))
                self._digests[number] = canonical_sha256([[path.name, sha256_of_file(path)] for path in files], ascii_only=True)
            else:
                model = self.whole(number)
                self._digests[number] = canonical_sha256([weights_digest(model), model.hf.config.to_json_string()], ascii_only=True)
        return self._digests[number]

    def _order(self, number: int) -> list[int] | None:
        """The teacher's own number of each of the task's labels."""
        place, member = self.members[number]
        names = labels_of_model(read_config(member.model), self.config.data.kind)
        if names is None:
            return None
        try:
            return resolve_labels(self.source.labels, dict(enumerate(names)), member.label_map, member.model, f"{place}.label_map")
        except DataError:
            self.whole(number)  # a model without the task's head has no label names either: that is the error then
            raise

    def _shape(self, number: int) -> FrozenEncoder:
        """The teacher without weights."""
        with torch.device("meta"):
            encoder = untrained_task(read_config(self.members[number][1].model), self.config.data.kind)
        check_length("the teacher", encoder.max_positions, self.config)
        return FrozenEncoder(encoder)


class _Progress:
    """A line now and then: rows' tokens that are done, and the time left."""

    def __init__(self, place: str, task: EncodedTask, world: int) -> None:
        self.place, self.total = place, max(1.0, float(np.sum(task.lengths)) / world)
        self.done = 0
        self.started = self.shown = time.monotonic()

    def __call__(self, tokens: int) -> None:
        """Count the tokens of a batch."""
        self.done += tokens
        now = time.monotonic()
        if process_group.rank() == 0 and now - self.shown >= SHOWN_SECONDS:
            self.shown = now
            share = min(1.0, self.done / self.total)
            say(f"{self.place}: {share:.0%} of the outputs computed, {duration((now - self.started) * (1 - share) / share)} left")


def check_length(model: str, positions: int, config: TaskRunConfig) -> None:
    """Raise LaunchError where rows may be longer than a model's positions. model: in words."""
    if config.data.max_length > positions:
        got = f"got {config.data.max_length}; lower it"
        raise LaunchError(f"data.max_length: expected at most {positions}, the positions of {model}, {got}")
