"""The numbers of a train line, in the order of the terminal. docs/metrics.md has a row for each; a test compares both."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from launcher.text import duration, number, share


@dataclass(frozen=True)
class TrainMetric:
    """One number of a train line. text: as the terminal shows it; None: not shown there.

    per_update: the trainer gives it for each update (kd/training/update_report.py); the line has the mean since the last line.
    """

    key: str
    text: Callable[[Any], str] | None = None
    per_update: bool = False


TRAIN_METRICS = (
    TrainMetric("updates"),
    TrainMetric("phase"),
    TrainMetric("tokens"),
    TrainMetric("tokens_total"),
    TrainMetric("loss", per_update=True),
    TrainMetric("learning_rate", lambda value: f"lr {value:.3g}"),
    TrainMetric("gradient_norm", lambda value: f"norm {number(value)}", per_update=True),
    TrainMetric("tokens_per_second", lambda value: f"{value:,.0f} tokens/s"),
    TrainMetric("epoch", lambda value: f"epoch {value:.3f}"),
    TrainMetric("data_wait_share", lambda value: f"data wait {share(value)}"),
    TrainMetric("memory_gb", lambda value: f"{value:.2f} GB"),
    TrainMetric("seconds_left", lambda value: f"{duration(value)} left"),
    TrainMetric("skipped_updates", lambda value: f"{value} skipped" if value else ""),
    TrainMetric("loss_spikes"),
    TrainMetric("skipped_shards"),
)
PER_UPDATE = tuple(metric.key for metric in TRAIN_METRICS if metric.per_update)
