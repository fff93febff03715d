"""One line of numbers to three places: metrics.jsonl (the truth), the console with log.txt, and W&B. The only home of `wandb`.

1. Rank 0 hands `Reporters.line` one flat dict per report; docs/metrics.md explains every field.
2. metrics.jsonl gets it whole before anything else sees it; `trim` takes back what lies behind the checkpoint that a run goes on from.
3. W&B gets the same numbers, each update once, under the run's fixed id. A start first sends the lines of metrics.jsonl that the server, or
   the offline files, lack after a kill; launcher/reporting/wandb_replay.py rebuilds a clean W&B run from the truth.

Nothing here may stop or slow a run: a full disk or a silent server costs one sentence, and training goes on. W&B's client works on a
thread of its own, because it would wait for ever for a process of its own that hangs.
"""

import errno
import math
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from rich.console import Console

from launcher.config.run_config import ReportSettings
from launcher.errors import LaunchError
from launcher.redaction import redacted
from launcher.reporting.background import MOST, Beside
from launcher.reporting.console import Screen, sentence
from launcher.reporting.wandb_files import as_ranges, rows_held
from launcher.reporting.wandb_sent import KINDS, Sent, Warnings
from launcher.run_folder.metrics_file import METRICS, AppendedFile, json_line, read

LOG = "log.txt"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
AXES = ("update", "tokens")
CONSTANTS = ("updates", "tokens_total")  # no curves
INIT_SECONDS = 20.0  # for W&B's server to answer at the start
FINISH_SECONDS = 60.0  # for what is not yet uploaded at the end; the rest stays on disk
HANGING_SECONDS = 10.0  # more: then its process hangs


class Reporters:
    """A run's voice, on rank 0 only. Knows nothing of the run but what it is handed."""

    def __init__(
        self,
        settings: ReportSettings,
        folder: Path,
        *,
        name: str,
        config: Mapping[str, Any],
        run_id: str,
        console: Console | None = None,
    ) -> None:
        self._lock = threading.RLock()  # W&B's thread speaks too
        self._said: set[str] = set()
        self._given_up = False
        self._screen = Screen(name, console)
        self._log = AppendedFile(folder / LOG)
        self._metrics = AppendedFile(folder / METRICS)
        self._wandb: WandB | None = None
        if settings.wandb != "off":
            with self._never_fatal("W&B"):
                self._wandb = WandB(settings, folder, name=name, config=config, run_id=run_id, say=self._heard)
                self._beside = Beside("W&B", self._wandb_fails)
                self._beside.call(self._wandb.catch_up, read(folder / METRICS))

    def line(self, values: Mapping[str, Any]) -> None:
        """Report one line: kind train, heldout or event, update, and what docs/metrics.md lists for the kind."""
        values = redacted(dict(values))  # an event may quote an error that quotes a URL
        with self._lock:
            self._append(self._metrics, json_line(values))
            self._append(self._log, f"{_now()}  {sentence(values)}\n")
            with self._never_fatal("the console"):
                self._screen.report(values)
        if self._wandb is not None and not self._beside.call(self._wandb.log, values):
            self._once(f"W&B: expected it to take line after line, got {MOST:,} that wait; lines are left out, {self._wandb.later}")

    def moved(self, update: int, updates: int, loss: float | None, first: bool) -> None:
        """Move a terminal's bar. Without a terminal, print the first update of a start as a line."""
        values = {"kind": "train", "update": update, "updates": updates, "loss": loss}
        with self._lock, self._never_fatal("the console"):
            if self._screen.console.is_terminal:
                self._screen.report(values)
            elif first:
                self._screen.report(values)
                self._append(self._log, f"{_now()}  {sentence(values)}\n")

    def say(self, text: str) -> None:
        """A plain sentence to the console and log.txt, without the credentials that an error may quote."""
        text = redacted(text)
        with self._lock:
            self._append(self._log, "".join(f"{_now()}  {line}\n" for line in text.splitlines()))
            with self._never_fatal("the console"):
                self._screen.say(text)

    def close(self, exit_code: int = 0) -> None:
        """End the reports; W&B learns how the run ended, and gets FINISH_SECONDS to take the rest."""
        with self._never_fatal("the console"):
            self._screen.close()
        if self._wandb is not None:
            self._beside.call(self._wandb.finish, exit_code)
            if not self._beside.finish(FINISH_SECONDS + HANGING_SECONDS):
                self._once(f"W&B: expected its process to end, got no answer from it; it is given up, {self._wandb.later}")
                self._given_up = True  # what waited for it will only complain
                self._wandb.give_up()
            self._wandb = None
        self._metrics.close()
        self._log.close()

    def _append(self, file: AppendedFile, text: str) -> None:
        try:
            file.append(text)
        except OSError as error:
            if not file.path.parent.is_dir():
                advice = "the run folder was moved or removed: move it back, or lines and checkpoints are lost"
            else:
                advice = "free space" if error.errno in NO_ROOM else "see its mode and its disk"
            self._once(f"{file.path}: expected to append a line, got {error.strerror or error}; the run goes on, {advice}")

    @contextmanager
    def _never_fatal(self, what: str) -> Iterator[None]:
        """Whatever fails inside is said once and forgotten: W&B and terminals raise too many kinds of errors to name."""
        try:
            yield
        except Exception as error:
            self._once(_failure(what, error))

    def _heard(self, text: str) -> None:
        """What W&B says."""
        if not self._given_up:
            self.say(text)

    def _wandb_fails(self, error: Exception) -> None:
        if not self._given_up:
            self._once(_failure("W&B", error))

    def _once(self, text: str) -> None:
        with self._lock:
            if text not in self._said:
                self._said.add(text)
                self.say(text)


class WandB:
    """A W&B run with update as its axis. Sends each update of each kind once, also over several starts of the same run."""

    def __init__(self, settings: ReportSettings, folder: Path, *, name: str, config: Mapping[str, Any], run_id: str, say: Any) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # W&B's telemetry on itself: a server that is away would hold the end up
        try:
            import wandb  # noqa: PLC0415 (importing it costs 0.6 s, and a run without W&B needs nothing of it)
            from wandb.util import get_core_path  # noqa: PLC0415
        except ImportError as error:
            raise LaunchError(f"expected the package wandb, got {error}; pip install wandb") from error
        given = {
            "project": settings.project,
            "entity": settings.entity,
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
        online = self._start_online(wandb, given, surroundings) if settings.wandb == "online" else None
        self._run: Any = online or self._start(wandb, "offline", given)
        self.sent = Sent()
        self._offline_files = None if online else (str(get_core_path()), folder, run_id)
        self._as_asked = online is not None or settings.wandb == "offline"
        if online:
            self.sent.know(online.starting_step - 1)  # a kill takes with it what was not uploaded: the server knows best
        self.warnings.clear()  # the start has said what matters

    def _start_online(self, wandb: Any, given: dict[str, Any], surroundings: Any) -> Any:
        """The run on the server, or None, said, where the server cannot have it: then it is recorded offline."""
        try:
            server = urlsplit(surroundings.base_url)
            if surroundings.mode in ("offline", "dryrun", "disabled"):
                why = f"expected WANDB_MODE=online or none, got {surroundings.mode}"
            elif "@" in server.netloc or server.query:
                why = "expected WANDB_BASE_URL without user, password and query, which W&B would write into its logs, got one with them"
            elif wandb.login(prompt=False):  # never ask: nobody may be there to answer
                run = self._start(wandb, "online", given)
                self._say(f"W&B: {run.url}")
                return run
            else:
                why = "expected an API key, got none (`wandb login` takes one)"
        except Exception as error:
            why = f"expected the server to answer, got {' '.join(str(error).split())}"
        self._say(f"W&B: {why}; recording offline, {self.later}")
        return None

    @staticmethod
    def _start(wandb: Any, mode: str, given: dict[str, Any]) -> Any:
        # Offline there is no server to ask about an earlier part; W&B would only say so.
        with _arguments_without_secrets():
            run = wandb.init(mode=mode, resume="allow" if mode == "online" else None, **given)
        for axis in AXES:
            run.define_metric(axis, hidden=True)
        for kind in KINDS:
            run.define_metric(f"{kind}/*", step_metric="update")
        return run

    def catch_up(self, lines: list[dict[str, Any]], anew: bool = False) -> None:
        """Send what W&B lacks of a run's lines so far. Offline, its files say what it has: a kill takes rows that were not yet written.

        anew: send every line that the server has not got, whatever earlier files hold.
        """
        if self._offline_files is not None and lines and not anew:
            self.sent.hold(rows_held(*self._offline_files))
        for values in sorted(lines, key=lambda values: values["update"]):
            self._send(values)

    def log(self, values: Mapping[str, Any]) -> None:
        """Send one line: numbers under train/ or heldout/, an event to the summary alone."""
        self._say_warnings()
        self._send(values)

    def _send(self, values: Mapping[str, Any]) -> None:
        kind, update = values["kind"], values["update"]
        if kind not in KINDS:
            self._run.summary[f"event/{values.get('event', 'event')}"] = f"update {update}: {values.get('message', '')}".rstrip(": ")
            return
        if not self.sent.is_new(kind, update):
            return
        self.sent.hold({(kind, update)})
        axes = {key: values[key] for key in AXES if key in values}
        curves = {key: value for key, value in values.items() if key not in ("kind", "time", *AXES, *CONSTANTS) and _finite(value)}
        if "time" in values:
            axes["_timestamp"] = values["time"]  # the wall-time axis of W&B, also where lines are sent later
        self._run.log({**axes, **{f"{kind}/{key.removeprefix(f'{kind}_')}": value for key, value in curves.items()}}, step=update)

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


def _failure(what: str, error: Exception) -> str:
    return f"{what}: {' '.join(str(error).split()) or type(error).__name__}; the run goes on, {METRICS} has every number"


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")
