"""The rows that an export is compared on, and the texts that it is calibrated on."""

import argparse
from collections.abc import Iterator

from data_shards.corpus import Corpus
from data_shards.stream.settings import StreamSettings
from data_shards.stream.stream import Stream
from kd.batch import Batch
from kd.export.runtime import AnySession
from launcher.config.task_config import TaskRunConfig
from launcher.deployment.conversion.batches import task_batches
from launcher.deployment.conversion.quality import Comparison, ShardsComparison, TaskComparison
from launcher.deployment.models import DeployedModel
from launcher.errors import LaunchError
from launcher.tasks.build import check_metric_packages
from launcher.tasks.data import task_config
from launcher.tasks.source import TaskSource
from launcher.training.batches import to_batch

CALIBRATION_ROWS = 256
FEWEST_ROWS = 32
"""Fewer rows give ranges that depend on the choice of rows."""
CALIBRATION_BATCH = 4
"""Rows at a time: every linear map's input is held in memory."""


class ExportData:
    """The data that the command line names, read once."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        """Raises LaunchError for a task's configuration that cannot be used, before the model is opened."""
        self._arguments = arguments
        self._config: TaskRunConfig | None = None
        self._source: TaskSource | None = None
        if arguments.task_config:
            check_metric_packages()
            self._config = task_config(arguments.task_config, [f"student.init={arguments.model}", *arguments.settings])

    def comparison(self, model: DeployedModel, original: AnySession) -> Comparison | None:
        """None where no data is named. original: the model in torch."""
        if self._config is not None:
            return TaskComparison(model, original, self._config, self._task())
        if self._arguments.shards:
            return ShardsComparison(model, original, self._arguments.shards, self._arguments.windows)
        return None

    def calibration(self, model: DeployedModel) -> list[Batch]:
        """Batches of the task's train split, or of the shards' train part. Raises LaunchError where there is no text, or too little."""
        wanted = self._arguments.calibration_rows or CALIBRATION_ROWS
        if self._config is not None:
            source = self._task()
            where, split = f"{self._arguments.task_config}: train", source.splits.get("train")
            batches = [] if split is None else list(task_batches(source.encoded("train", model.path), wanted, CALIBRATION_BATCH))
        elif self._arguments.shards:
            where, batches = self._arguments.shards, list(_documents(model, self._arguments.shards, wanted))
        else:
            raise LaunchError("int8-static: expected --task-config or --shards with texts to calibrate on, got neither; give one")
        rows = sum(len(batch.input_ids) for batch in batches)
        if rows < FEWEST_ROWS:
            raise LaunchError(
                f"{where}: expected at least {FEWEST_ROWS} rows to calibrate on, got {rows}; add texts, or take --precision int8"
            )
        return batches

    def _task(self) -> TaskSource:
        assert self._config is not None
        if self._source is None:
            self._source = TaskSource.read(self._config)
        return self._source


def _documents(model: DeployedModel, shards: str, rows: int) -> Iterator[Batch]:
    """Documents of the train part, masked as in training, one in a row."""
    settings = StreamSettings(window_tokens=min(128, model.encoder.max_positions), packing="documents")
    stream = Stream(Corpus.open(shards, None), "train", settings, CALIBRATION_BATCH)
    for start in range(0, min(rows, stream.windows_per_epoch), CALIBRATION_BATCH):
        yield to_batch(stream.batch(start, 0, 1, CALIBRATION_BATCH, 0), update=0)
