"""The numbers of a run's lines, in the order of the terminal. docs/metrics.md has a row for each; a test compares both.

The terminal, the W&B axes, the dashboard (launcher/dashboard) and the run's page (launcher/run_page) read this list.
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
    "head": ("head",),
    "backward": ("backward",),
    "step": ("step",),
    "collectives": ("counting", "agreeing"),
    "report": ("reporting",),
}
"""Part of an update -> the phases of kd/distributed/rank_progress.py that it consists of."""


@dataclass(frozen=True)
class Panel:
    """A curve's place: the section, the title of the number, its unit. together: title of the panel that several numbers share."""

    section: str
    title: str
    unit: str = ""
    together: str = ""


@dataclass(frozen=True)
class TrainMetric:
    """One number of a train line. text: as the terminal shows it; None: not shown there.

    per_update: the trainer gives it for each update (kd/training/update_report.py); the line has the mean since the last line.
    panel: its curve on the dashboard and on the run's page. None: no curve.
    """

    key: str
    text: Callable[[Any], str] | None = None
    per_update: bool = False
    panel: Panel | None = None


COUNT = "since the start"
"""The unit of counts."""
_BANDS, _ENTROPY, _TIME = "KL by frequency of the token", "entropy of student and teacher", "share of time by part"
_UNDONE, _STARTS = "skipped and undone", "restarts and stragglers"
TRAIN_METRICS = (
    TrainMetric("updates"),
    TrainMetric("phase"),
    TrainMetric("tokens"),
    TrainMetric("tokens_total"),
    TrainMetric("elapsed_seconds"),
    TrainMetric("loss", per_update=True, panel=Panel("learning", "loss, weighted sum of the terms", "nats")),
    TrainMetric("learning_rate", lambda value: f"lr {value:.3g}", panel=Panel("learning", "learning rate")),
    TrainMetric(
        "gradient_norm",
        lambda value: f"norm {number(value)}",
        per_update=True,
        panel=Panel("learning", "gradient norm before clipping"),
    ),
    TrainMetric("clipped_share", per_update=True, panel=Panel("learning", "share of clipped updates", "share")),
    TrainMetric("agreement", per_update=True, panel=Panel("teaching", "agreement with the teacher, training tokens", "share")),
    TrainMetric("kl", per_update=True, panel=Panel("teaching", "KL from the teacher, training tokens", "nats")),
    *(TrainMetric(f"kl/{band}", per_update=True, panel=Panel("teaching", f"KL at {band} tokens", "nats", _BANDS)) for band in BANDS),
    TrainMetric("entropy", per_update=True, panel=Panel("teaching", "entropy of the student", "nats", _ENTROPY)),
    TrainMetric("teacher_entropy", per_update=True, panel=Panel("teaching", "entropy of the teacher", "nats", _ENTROPY)),
    TrainMetric("masked_loss", per_update=True, panel=Panel("learning", "loss of masked training tokens", "nats")),
    TrainMetric("masked_top1", per_update=True, panel=Panel("learning", "right guesses of masked training tokens", "share")),
    TrainMetric(
        "tokens_per_second", lambda value: f"{value:,.0f} tokens/s", panel=Panel("speed", "tokens per second, all ranks", "tokens/s")
    ),
    TrainMetric("tokens_per_second_per_rank", panel=Panel("speed", "tokens per second and rank", "tokens/s")),
    TrainMetric("tflops", panel=Panel("speed", "TFLOP/s of the models", "TFLOP/s")),
    TrainMetric("utilisation", lambda value: f"utilisation {share(value)}", panel=Panel("speed", "model FLOPs utilisation", "share")),
    TrainMetric("epoch", lambda value: f"epoch {value:.3f}", panel=Panel("learning", "data position", "passes")),
    TrainMetric(
        "data_wait_share",
        lambda value: f"data wait {share(value)}",
        panel=Panel("speed", "share of the time that waits for data", "share"),
    ),
    TrainMetric("memory_gb", lambda value: f"{value:.2f} GB", panel=Panel("speed", "peak memory of rank 0", "GB")),
    TrainMetric("cka_seconds", panel=Panel("speed", "seconds to measure the similarity of layers", "s")),
    TrainMetric("memory_planned_gb", lambda value: f"planned {value:.2f} GB"),
    TrainMetric("seconds_left", lambda value: f"{duration(value)} left", panel=Panel("speed", "time left", "s")),
    *(TrainMetric(f"time/{part}", panel=Panel("speed", f"share of the time: {part}", "share", _TIME)) for part in TIME_PARTS),
    TrainMetric(
        "skipped_updates",
        lambda value: f"{value} skipped" if value else "",
        panel=Panel("health", "skipped updates", COUNT, _UNDONE),
    ),
    TrainMetric("loss_spikes", panel=Panel("health", "loss spikes", COUNT)),
    TrainMetric("skipped_shards", panel=Panel("health", "damaged shards", COUNT)),
    TrainMetric("restarts", panel=Panel("health", "restarts", COUNT, _STARTS)),
    TrainMetric("roll_backs", panel=Panel("health", "roll-backs", COUNT, _UNDONE)),
    TrainMetric("stragglers", panel=Panel("health", "stragglers", COUNT, _STARTS)),
)
GROUPS = {
    "cka": Panel("teaching", "CKA with the nearest teacher layer", "CKA"),
    "cka_layer": Panel("teaching", "nearest teacher layer", "layer"),
}
"""Group -> the panel of train numbers `GROUP/LAYER`, of which there are as many as the student has layers."""
PER_UPDATE = tuple(metric.key for metric in TRAIN_METRICS if metric.per_update)
PANELS = {metric.key: metric.panel for metric in TRAIN_METRICS if metric.panel is not None}
