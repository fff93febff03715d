"""A run's curves in Weights & Biases. The only file that imports `wandb`.

1. W&B gets the numbers of metrics.jsonl, each update once, under the run's fixed id.
2. A start first sends the lines of metrics.jsonl that the server, or the offline files, lack after a kill.
3. launcher/reporting/wandb_replay.py rebuilds a clean W&B run from metrics.jsonl.
"""

import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from launcher.config.run_config import ReportSettings
from launcher.errors import LaunchError
from launcher.redaction import redacted
from launcher.reporting.catalogue import AXES, CHECKPOINT, CONSTANTS
from launcher.reporting.wandb_files import as_ranges, rows_held
from launcher.reporting.wandb_sent import KINDS, Sent, Warnings

ALERTS = {
    "skipped_update": ("loss or gradient not finite", "WARN"),
    "loss_spike": ("loss spike", "WARN"),
    "straggler": ("a rank is slow", "WARN"),
    "slow": ("low throughput", "WARN"),
    "checkpoint_failed": ("checkpoint not written", "ERROR"),
    "stopped": ("run stopped", "ERROR"),
}
"""Event -> title and level of the alert that W&B sends. W&B sends one title at most once a minute."""
TABLE, GUESSERS = "samples", ("student", "teacher")
"""The key of the table of masked sentences, and its columns of guesses."""
INIT_SECONDS = 20.0  # for W&B's server to answer at the start
FINISH_SECONDS = 60.0  # for what is not yet uploaded at the end; the rest stays on disk


class WandB:
    """A W&B run with update as its axis. Sends each update of each kind once, also over several starts of the same run."""

    def __init__(self, settings: ReportSettings, folder: Path, *, name: str, config: Mapping[str, Any], run_id: str, say: Any) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # W&B's telemetry on itself: a server that is away would hold the end up
        os.environ.setdefault("WANDB_DATA_DIR", str(folder.absolute() / "wandb"))  # tables wait there, and not in the user's home
        try:
            import wandb  # noqa: PLC0415 (importing it costs 0.6 s, and a run without W&B needs nothing of it)
            from wandb.util import get_core_path  # noqa: PLC0415
        except ImportError as error:
            raise LaunchError(f"expected the package wandb, got {error}; pip install wandb") from error
        options = {
            "project": settings.project,
            "entity": settings.entity,
            "group": settings.group,
            "job_type": settings.job_type,
            "tags": settings.tags,
            "id": run_id,
            "name": name,
            "dir": str(folder),
            "config": dict(config),
            "settings": wandb.Settings(
                console="off", silent=True, disable_code=True, init_timeout=INIT_SECONDS, finish_timeout=FINISH_SECONDS
            ),
        }
        self._module = wandb
        self._say, self.later = say, f"`stillhouse wandb-replay {folder}` sends all of it later, as one clean run"
        self.warnings = Warnings()
        surroundings = wandb.setup(wandb.Settings(silent=True)).settings
        wandb.termsetup(surroundings, self.warnings)
        online = self._start_online(wandb, options, surroundings) if settings.wandb == "online" else None
        self._run: Any = online or self._start(wandb, "offline", options)
        self.sent = Sent()
        self._offline_files = None if online else (str(get_core_path()), folder, run_id)
        self._as_asked = online is not None or settings.wandb == "offline"
        if online:
            self.sent.know(online.starting_step - 1)  # a kill takes with it what was not uploaded: the server knows best
        self.warnings.clear()  # the start has said what matters

    def _start_online(self, wandb: Any, options: dict[str, Any], surroundings: Any) -> Any:
        """The run on the server, or None, said, where the server cannot have it: then it is recorded offline."""
        try:
            server = urlsplit(surroundings.base_url)
            if surroundings.mode in ("offline", "dryrun", "disabled"):
                why = f"expected WANDB_MODE=online or none, got {surroundings.mode}"
            elif "@" in server.netloc or server.query:
                why = "expected WANDB_BASE_URL without user, password and query, which W&B would write into its logs, got one with them"
            elif wandb.login(prompt=False):  # never ask: nobody may be there to answer
                run = self._start(wandb, "online", options)
                self._say(f"W&B: {run.url}")
                return run
            else:
                why = "expected an API key, got none (`wandb login` takes one)"
        except Exception as error:
            why = f"expected the server to answer, got {' '.join(str(error).split())}"
        self._say(f"W&B: {why}; recording offline, {self.later}")
        return None

    @staticmethod
    def _start(wandb: Any, mode: str, options: dict[str, Any]) -> Any:
        # Offline there is no server to ask about an earlier part; W&B would only say so.
        with _arguments_without_secrets():
            run = wandb.init(mode=mode, resume="allow" if mode == "online" else None, **options)
        for axis in AXES:
            run.define_metric(axis, hidden=True)
        for kind in KINDS:
            run.define_metric(f"{kind}/*", step_metric="update")
        return run

    def catch_up(self, lines: list[dict[str, Any]], anew: bool = False) -> None:
        """Send the lines of a run that W&B lacks. Offline, its files show what it has: a kill loses rows that were not yet written.

        anew: send every line that the server lacks, also those in earlier files.
        """
        if self._offline_files is not None and lines and not anew:
            self.sent.hold(rows_held(*self._offline_files))
        for values in sorted(lines, key=lambda values: values["update"]):
            self._send(values)

    def log(self, values: Mapping[str, Any]) -> None:
        """Send one line: numbers under train/, heldout/ or checkpoint/. Other events only change the summary."""
        self._say_warnings()
        self._send(values)
        if values["kind"] == "event" and values.get("event") in ALERTS and values.get("reason") != "requested":
            title, level = ALERTS[values["event"]]
            self._run.alert(title, f"update {values['update']}: {values.get('message', '')}", level)

    def _send(self, values: Mapping[str, Any]) -> None:
        kind, update = values["kind"], values["update"]
        if kind == "event":
            self._run.summary[f"event/{values.get('event', 'event')}"] = f"update {update}: {values.get('message', '')}".rstrip(": ")
            if values.get("event") != "checkpoint" or not any(key in values for key in CHECKPOINT):
                return
            kind, values = "checkpoint", {key: values[key] for key in (*AXES, *CHECKPOINT, "time") if key in values}
        if not self.sent.is_new(kind, update):
            return
        self.sent.hold({(kind, update)})
        axes = {key: values[key] for key in AXES if key in values}
        curves = {key: value for key, value in values.items() if key not in ("kind", "time", *AXES, *CONSTANTS) and _finite(value)}
        if "time" in values:
            axes["_timestamp"] = values["time"]  # the wall-time axis of W&B, also where lines are sent later
        self._run.log({**axes, **{f"{kind}/{key.removeprefix(f'{kind}_')}": value for key, value in curves.items()}}, step=update)

    def table(self, update: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Send masked sentences with first guesses. rows: of samples.jsonl."""
        data = [[str(row["text"]), str(row["label"]), *(_listed(row[name]) for name in GUESSERS)] for row in rows]
        table = self._module.Table(columns=["text", "label", *GUESSERS], data=data)
        self._run.log({"update": update, TABLE: table}, step=update)

    def artifact(self, folder: Path, facts: Mapping[str, Any], upload: bool) -> None:
        """Send the student in a folder as an artifact. upload: its files too, else its place and digests."""
        made = self._module.Artifact(f"student-{self._run.id}", type="model", metadata=dict(facts))
        if upload:
            made.add_dir(str(folder), policy="immutable", skip_cache=True)
        else:
            made.add_reference(folder.absolute().as_uri())
        self._run.log_artifact(made)

    def finish(self, exit_code: int) -> bool:
        """Say how the run ended; whether W&B has taken everything, in the way that was asked for."""
        try:
            self._run.finish(exit_code=exit_code)
        except Exception as error:  # its process is gone: what it had is not sent
            self.warnings.warning(" ".join(str(error).split()) or type(error).__name__)
            self.give_up()
        if self._offline_files is not None and (missing := self.sent.missing(rows_held(*self._offline_files))):
            self.warnings.warning(f"expected the offline files to hold every line, got none for updates {as_ranges(missing)}")
        self._say_warnings()
        if self.warnings.seen:
            self._say(f"W&B: expected it to take every line, got the above; {self.later}")
        return self._as_asked and not self.warnings.seen

    def give_up(self) -> None:
        """End W&B's own process, which hangs or has died already: the end of ours would wait for it, or complain."""
        for process in psutil.Process().children():
            with suppress(psutil.Error):
                if process.name().startswith("wandb-"):
                    process.kill()
        with suppress(Exception):
            self._module.teardown()

    def _say_warnings(self) -> None:
        for warning in self.warnings.take():
            self._say(f"W&B: {warning}")


def default_server() -> str | None:
    """The address that W&B reports to where no other is set; None where it is not installed."""
    try:
        import wandb  # noqa: PLC0415
    except ImportError:
        return None
    return str(wandb.Settings().base_url)


@contextmanager
def _arguments_without_secrets() -> Iterator[None]:
    """W&B records the command line, in which a URL may hold a password."""
    kept = sys.argv
    sys.argv = redacted(kept)
    try:
        yield
    finally:
        sys.argv = kept


def _listed(guesses: Sequence[tuple[str, float]]) -> str:
    """`cat 61 %, dog 12 %`."""
    return ", ".join(f"{word} {100 * probability:.0f} %" for word, probability in guesses)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
