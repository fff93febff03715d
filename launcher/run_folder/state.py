"""The state of a run, from its folder: running, done, stopped or dead. Writes nothing."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from launcher.run_folder.folder import RunFolder

ENDS = ("started", "resumed", "stopped", "finished", "export_failed")
LATE_SECONDS = 1800.0
"""A running run without a new line for so long is called silent."""
Kind = Literal["running", "silent", "done", "not_started", "requested", "stopped", "export_failed", "died"]


@dataclass(frozen=True)
class RunState:
    """The state of a run.

    update: the newest update that metrics.jsonl names. message: of the event that ended the run. seconds: since the newest line, of a
        run that is silent.
    """

    kind: Kind
    update: int = 0
    message: str = ""
    owner: str = ""
    seconds: float = 0.0

    @property
    def is_running(self) -> bool:
        """True while a process owns the folder."""
        return self.kind in ("running", "silent")

    @property
    def sentence(self) -> str:
        """The state in words."""
        at = f"update {self.update:,}"
        return {
            "running": f"running ({self.owner})",
            "silent": f"running ({self.owner}), but without a new line for {self.seconds / 60:.0f} minutes",
            "done": "done",
            "not_started": "not started: no update yet",
            "requested": f"stopped on request at {at}; start it again to continue",
            "stopped": f"stopped at {at}: {self.message}",
            "export_failed": f"ended at {at}, but its student was not written: {self.message}",
            "died": f"ended after {at} without a final event: it was killed, or an error ended it (see log.txt)",
        }[self.kind]


def run_state(run: RunFolder, lines: Sequence[Mapping[str, Any]], owner: str | None) -> RunState:
    """The state of a run. lines: those of metrics.jsonl. owner: what `owner_of` returns, None if no process owns the folder."""
    newest = max((int(line["update"]) for line in lines), default=0)
    if owner is not None:
        quiet = time.time() - run.metrics.stat().st_mtime if run.metrics.exists() else 0.0
        return RunState("silent" if quiet > LATE_SECONDS else "running", newest, owner=owner, seconds=quiet)
    if run.report.exists() and run.student.exists():
        return RunState("done", newest)
    last = next((line for line in reversed(lines) if line["kind"] == "event" and line.get("event") in ENDS), None)
    if last is None:
        return RunState("not_started", newest)
    message, update = str(last.get("message", "")), int(last["update"])
    if last["event"] == "stopped":
        return RunState("requested" if last.get("reason") == "requested" else "stopped", update, message)
    return RunState("export_failed", update, message) if last["event"] == "export_failed" else RunState("died", newest)
