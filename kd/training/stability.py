"""Detects updates that are not finite, and loss spikes. It judges numbers; the training loop acts on them.

A function of the reports alone, and part of a checkpoint: a run that was interrupted judges as one that was not.
"""

import math
from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from kd.training.settings import TrainSettings
from kd.training.update_report import UpdateReport

HISTORY = 64  # losses that a new one is compared with
ENOUGH = 8  # of them, before any is called a spike


@dataclass(frozen=True)
class Trouble:
    """One bad update. hopeless: no further update should follow as if nothing had happened.

    since: the first update that is to blame; a checkpoint to go back to is older.
    """

    kind: Literal["not_finite", "spike"]
    message: str
    since: int
    hopeless: bool


class Stability:
    """The last good losses, and how many bad updates there were."""

    def __init__(self, train: TrainSettings) -> None:
        self._train = train
        self._losses: deque[float] = deque(maxlen=HISTORY)
        self.bad_in_a_row = 0
        self.spikes = 0
        self.roll_backs = 0

    @property
    def may_roll_back(self) -> bool:
        """True if the run has a roll-back left."""
        return self.roll_backs < self._train.roll_backs

    def judge(self, report: UpdateReport) -> Trouble | None:
        """The trouble with an update, if any. Counts it."""
        if not report.applied:
            self.bad_in_a_row += 1
            hopeless = self.bad_in_a_row >= self._train.max_bad_updates
            # The update before the first bad one is what made the weights as they are.
            since = report.update - self.bad_in_a_row
            return Trouble("not_finite", f"{report.cause}, weights left as they were", since, hopeless)
        self.bad_in_a_row = 0
        usual = median(self._losses) if len(self._losses) >= ENOUGH else math.inf
        factor = self._train.spike_factor
        if factor is not None and report.loss > factor * usual:
            self.spikes += 1
            message = f"loss {report.loss:.4g} is {report.loss / usual:.1f} times the median of the last {len(self._losses)}, {usual:.4g}"
            return Trouble("spike", message, report.update, hopeless=self._train.roll_backs > 0)
        self._losses.append(report.loss)
        return None

    def rolled_back(self) -> None:
        """Count it, and begin to judge anew."""
        self.roll_backs += 1
        self.bad_in_a_row = 0

    def as_dict(self) -> dict[str, Any]:
        """The state that a checkpoint stores."""
        return {
            "losses": list(self._losses),
            "bad_in_a_row": self.bad_in_a_row,
            "spikes": self.spikes,
            "roll_backs": self.roll_backs,
        }

    def restore(self, values: dict[str, Any]) -> None:
        """The inverse of as_dict."""
        self._losses = deque(values["losses"], maxlen=HISTORY)
        self.bad_in_a_row, self.spikes, self.roll_backs = (int(values[name]) for name in ("bad_in_a_row", "spikes", "roll_backs"))
