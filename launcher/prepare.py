"""A run before it starts: its data opened, its plan, and what builds it. The one place that knows both kinds of runs."""

from collections.abc import Iterator
from dataclasses import dataclass

from data_shards.corpus import Corpus
from launcher.config.run_config import AnyRunConfig, RunConfig
from launcher.config.task_config import TaskRunConfig
from launcher.planning.plan import make_plan
from launcher.planning.table import rows
from launcher.tasks.build import check_metric_packages, task_data
from launcher.tasks.caching import measured_config
from launcher.tasks.plan import make_task_plan, task_rows
from launcher.tasks.source import TaskSource
from launcher.training.build import data_of
from launcher.training.parts import TrainingData
from launcher.training.session import DiskNeed


@dataclass(frozen=True)
class Prepared:
    """A planned run. rows: the plan in words."""

    plan: DiskNeed
    rows: Iterator[tuple[str, str]]
    data: TrainingData


def prepare(config: AnyRunConfig, world: int, corpus: Corpus | None = None, measured: bool = False) -> Prepared:
    """Open the data of a configuration and plan the run on `world` ranks.

    corpus: the data of a run on text, if it is open already.
    measured: a few updates are timed and thrown away, so nothing is computed on all rows before.

    Raises StillhouseError for what cannot work.
    """
    if isinstance(config, TaskRunConfig):
        check_metric_packages()
        source = TaskSource.read(config)
        task_plan = make_task_plan(config, source, world)
        return Prepared(task_plan, task_rows(task_plan), task_data(measured_config(config) if measured else config, source))
    assert isinstance(config, RunConfig)
    corpus = corpus or Corpus.open(config.data.shards, config.data.cache_folder)
    plan = make_plan(config, world, corpus)
    return Prepared(plan, rows(plan), data_of(config, corpus))
