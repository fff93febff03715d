"""Recovery of a run: bad updates are reported, counted and, if configured, undone. A limited number of damaged shards is skipped.

Every rank has one and calls it alike, so that all decide the same; what is said goes to the reports of rank 0.
"""

import json
from collections.abc import Callable
from typing import Any

from kd.distributed import process_group
from kd.training.stability import Stability
from kd.training.trainer import Trainer
from kd.training.update_report import UpdateReport
from launcher.config.run_config import AnyRunConfig
from launcher.errors import SharedError
from launcher.run_folder.folder import RunFolder
from launcher.training.start import newest_checkpoint


class Recovery:
    """One run's troubles so far."""

    def __init__(self, config: AnyRunConfig, folder: RunFolder, trainer: Trainer, say: Callable[..., None]) -> None:
        """say: (event, message, **more), to the reports."""
        self._config = config
        self._folder = folder
        self._trainer = trainer
        self._say = say
        self._stability = Stability(config.train)
        self.rolled_back = False
        """True if the last update was undone, so that a checkpoint is due."""
        self.skipped_shards: dict[str, str] = {}
        """Damaged shards that were skipped -> the reason; over all ranks."""

    def is_unrecoverable(self, report: UpdateReport, windows: list[int], wait_for_checkpoint: Callable[[], None]) -> bool:
        """Report a bad update and roll back if that is configured. True: the run has to stop. Collective.

        windows: those of the whole update. wait_for_checkpoint: waits for a checkpoint under way, a candidate for the roll-back.
        """
        self.rolled_back = False
        trouble = self._stability.judge(report)
        if trouble is None:
            return False
        event = "skipped_update" if trouble.kind == "not_finite" else "loss_spike"
        windows = sorted(windows)
        self._say(event, f"update {report.update}: {trouble.message}; windows {shortened(windows)}", windows=windows)
        if not trouble.hopeless:
            return False
        if self._stability.may_roll_back:
            wait_for_checkpoint()
            self.rolled_back = self._go_back(report.update, trouble.since)
        if not self.rolled_back:
            row = f"{self._stability.bad_in_a_row} updates in a row were not finite"
            why = row if trouble.kind == "not_finite" else "the loss leapt"
            spent = self._stability.roll_backs
            after = f" after {spent} roll-back{'s' if spent > 1 else ''}" if spent else ""
            self._say("stopped", f"{why}{after}; lower the learning rate, or look at those windows", reason=trouble.kind)
        return not self.rolled_back

    def _go_back(self, update: int, since: int) -> bool:
        """Take the weights of the newest good checkpoint from before the trouble; False where there is none. Collective."""
        saved = newest_checkpoint(self._folder, before=since)
        if saved is None:
            return False
        self._trainer.roll_back(saved)
        self._stability.rolled_back()
        back = saved.progress.done
        self._say(
            "rolled_back",
            f"update {update}: went back to the weights after update {back}; updates {back + 1} to {update} are not learned from; "
            f"roll-back {self._stability.roll_backs} of {self._config.train.roll_backs}",
        )
        return True

    def pass_over(self, missing: dict[str, str]) -> None:
        """Agree on this rank's newly missing shards -> why, and say them. Collective. Raises SharedError when there are too many."""
        for part in process_group.texts(json.dumps(missing)):
            for name, why in json.loads(part).items():
                if name not in self.skipped_shards:
                    self.skipped_shards[name] = why
                    self._say("skipped_shard", f"its windows are passed over: {why}", shard=name)
        most = self._config.data.max_skipped_shards
        if len(self.skipped_shards) > most:
            names = ", ".join(sorted(self.skipped_shards))
            raise SharedError(
                f"data.max_skipped_shards: expected at most {most} damaged shards, got {len(self.skipped_shards)} ({names}); "
                "bring them back, or allow more"
            )

    def counts(self) -> dict[str, int]:
        """The counts for a report line."""
        spikes = {"loss_spikes": self._stability.spikes} if self._config.train.spike_factor is not None else {}
        return spikes | {"skipped_shards": len(self.skipped_shards)}

    def as_dict(self) -> dict[str, Any]:
        """The state that a checkpoint stores."""
        return {"stability": self._stability.as_dict(), "skipped_shards": self.skipped_shards}

    def restore(self, values: dict[str, Any]) -> None:
        """The inverse of as_dict."""
        self._stability.restore(values["stability"])
        self.skipped_shards = dict(values["skipped_shards"])


def shortened(windows: list[int]) -> str:
    """The first of them, for a sentence."""
    shown = ", ".join(map(str, windows[:16]))
    return f"[{shown}]" if len(windows) <= 16 else f"[{shown}, … {len(windows)} in all]"
