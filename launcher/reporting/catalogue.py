"""The numbers of a run's lines, in the order of the terminal. docs/metrics.md has a row for each; a test compares both.

The terminal, the W&B axes and the dashboard (launcher/dashboard) read this list.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kd.evaluation.scores import BANDS
from launcher.text import duration, number, share

AXES = ("update", "tokens", "elapsed_seconds")
"""The x-axes that a line may have. Curves are drawn over the first one unless a panel names another."""
CONSTANTS = ("updates", "tokens_total")
"""Numbers of a train line that are no curves."""
CHECKPOINT = ("seconds", "bytes", "paused_seconds")
"""Numbers of an event `checkpoint` that are curves."""
TIME_PARTS = {
    "data": ("data",),
    "teacher": ("teacher",),
    "forward": ("forward",),
    "backward": ("backward",),
    "step": ("step",),
    "collectives": ("counting", "agreeing"),
    "report": ("reporting",),
}
"""Part of an update -> the phases of kd/distributed/rank_progress.py that it consists of."""


@dataclass(frozen=True)
class TrainMetric:
    """One number of a train line. text: as the terminal shows it; None: not shown there.

    per_update: the trainer gives it for each update (kd/training/update_report.py); the line has the mean since the last line.
    panel: (section, title, unit) of its curve on the dashboard. Metrics of one title share a panel. None: no panel.
    """

    key: str
    text: Callable[[Any], str] | None = None
    per_update: bool = False
    panel: tuple[str, str, str] | None = None


TRAIN_METRICS = (
    TrainMetric("updates"),
    TrainMetric("phase"),
    TrainMetric("tokens"),
    TrainMetric("tokens_total"),
    TrainMetric("elapsed_seconds"),
    TrainMetric("loss", per_update=True, panel=("learning", "training loss", "nats, weighted")),
    TrainMetric("learning_rate", lambda value: f"lr {value:.3g}", panel=("learning", "learning rate", "")),
    TrainMetric("gradient_norm", lambda value: f"norm {number(value)}", per_update=True, panel=("learning", "gradient norm", "")),
    TrainMetric("clipped_share", per_update=True, panel=("learning", "clipped updates", "share")),
    TrainMetric("agreement", per_update=True, panel=("teaching", "agreement with the teacher, training tokens", "share")),
    TrainMetric("kl", per_update=True, panel=("teaching", "KL from the teacher, training tokens", "nats")),
    *(TrainMetric(f"kl/{band}", per_update=True, panel=("teaching", "KL by frequency of the token", "nats")) for band in BANDS),
    TrainMetric("entropy", per_update=True, panel=("teaching", "entropy of student and teacher", "nats")),
    TrainMetric("teacher_entropy", per_update=True, panel=("teaching", "entropy of student and teacher", "nats")),
    TrainMetric("masked_loss", per_update=True, panel=("learning", "loss of masked training tokens", "nats")),
    TrainMetric("masked_top1", per_update=True, panel=("learning", "right guesses of masked training tokens", "share")),
    TrainMetric("tokens_per_second", lambda value: f"{value:,.0f} tokens/s", panel=("speed", "tokens per second", "tokens/s")),
    TrainMetric("tokens_per_second_per_rank", panel=("speed", "tokens per second and rank", "tokens/s")),
    TrainMetric("epoch", lambda value: f"epoch {value:.3f}", panel=("learning", "data position", "passes")),
    TrainMetric("data_wait_share", lambda value: f"data wait {share(value)}", panel=("speed", "waiting for data", "share")),
    TrainMetric("memory_gb", lambda value: f"{value:.2f} GB", panel=("health", "peak memory of rank 0", "GB")),
    TrainMetric("memory_planned_gb", lambda value: f"planned {value:.2f} GB"),
    TrainMetric("seconds_left", lambda value: f"{duration(value)} left", panel=("speed", "time left", "s")),
    *(TrainMetric(f"time/{part}", panel=("speed", "share of time by part", "share")) for part in TIME_PARTS),
    TrainMetric(
        "skipped_updates", lambda value: f"{value} skipped" if value else "", panel=("health", "skipped and undone", "since the start")
    ),
    TrainMetric("loss_spikes", panel=("health", "loss spikes", "since the start")),
    TrainMetric("skipped_shards", panel=("health", "damaged shards", "since the start")),
    TrainMetric("restarts", panel=("health", "restarts and stragglers", "since the start")),
    TrainMetric("roll_backs", panel=("health", "skipped and undone", "since the start")),
    TrainMetric("stragglers", panel=("health", "restarts and stragglers", "since the start")),
)
PER_UPDATE = tuple(metric.key for metric in TRAIN_METRICS if metric.per_update)
PANELS = {metric.key: metric.panel for metric in TRAIN_METRICS if metric.panel is not None}
