"""A run folder, read for `stillhouse doctor RUN`: how far it came, why it stopped, which checkpoint is good, what to do next.

Writes nothing.
"""

import argparse
import os
import shlex
import shutil
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from data_shards.errors import DataError
from data_shards.stream.cursor import Cursor
from data_shards.stream.stream import Stream
from kd.checkpoint import on_disk
from kd.checkpoint.on_disk import Checkpoint
from launcher.config.load import parse_config
from launcher.config.run_config import AnyRunConfig, RunConfig
from launcher.doctor.findings import Finding, bad, good, report, warning
from launcher.errors import LaunchError
from launcher.run_folder.folder import RunFolder
from launcher.run_folder.lock import owner_of
from launcher.run_folder.metrics_file import read
from launcher.run_folder.state import run_state
from launcher.text import counted, size


def run(arguments: argparse.Namespace) -> int:
    """Print what a run folder tells; 1 if anything is bad."""
    return report(list(health(Path(arguments.run))), arguments.json)


def health(path: Path) -> Iterator[Finding]:
    """Everything that the folder tells. Raises LaunchError when it is none of ours."""
    if not (path / "config.yaml").is_file():
        raise LaunchError(f"{path}: expected a run folder with config.yaml, got none; check the path")
    run = RunFolder(path)
    config = None
    try:
        config = parse_config((path / "config.yaml").read_text(encoding="utf-8"), str(path / "config.yaml"))
        yield good("configuration", f"{config.name}: readable")
    except (LaunchError, OSError, ValueError) as error:
        yield bad("configuration", str(error).splitlines()[0], "bring config.yaml back")
    owner = owner_of(run.folder)
    lines: list[dict[str, Any]] = []
    try:
        lines = read(run.metrics) if run.metrics.exists() else []
    except LaunchError as error:
        yield bad("metrics", str(error), "repair the line; the run will not start again before")
    newest, passed_over = on_disk.newest_good(run.checkpoints)
    yield from _progress(lines, newest)
    yield from _checkpoints(run, newest, passed_over)
    yield from _troubles(lines)
    if config is not None:
        if isinstance(config, RunConfig):
            yield from _data(config, newest)
        yield from _room(run, config, newest)
    yield from _permissions(path)
    yield _state(run, config, lines, owner, newest)


def _state(
    run: RunFolder, config: AnyRunConfig | None, lines: list[dict[str, Any]], owner: str | None, newest: Checkpoint | None
) -> Finding:
    """Running, done, stopped or dead; and what to do next."""
    subject = "state"
    state = run_state(run, lines, owner)
    again = "start it again with the same command"
    if config is not None:
        again += f", or: stillhouse train --config {shlex.quote(str(run.folder / 'config.yaml'))}"
    going_on = f"; it goes on after update {newest.progress.done}" if newest is not None else ""
    if state.kind == "silent":
        quiet = timedelta(seconds=int(state.seconds))
        return warning(subject, f"running ({owner}), but no line for {quiet}", "see what its ranks do: py-spy, the job's log")
    if state.kind == "running":
        return good(subject, f"running ({owner})")
    if state.kind == "done":
        return good(subject, f"done: student in {run.student}")
    if state.kind == "not_started":
        told = f"without a readable line of an update{going_on}" if newest is not None else "never started to learn"
        return warning(subject, told, again)
    if state.kind == "requested":
        return warning(subject, f"stopped on request at update {state.update}{going_on}", again)
    if state.kind == "stopped":
        advice = "do what the line says, then start it again (train.roll_backs)"
        return bad(subject, f"stopped at update {state.update}: {state.message}", advice)
    if state.kind == "export_failed":
        return bad(subject, state.message, again)
    return bad(
        subject,
        f"died after update {state.update} without a word (killed, or the machine went down){going_on}",
        f"look at the job's log, then {again}",
    )


def _progress(lines: list[dict[str, Any]], newest: Checkpoint | None) -> Iterator[Finding]:
    train = [line for line in lines if line["kind"] == "train"]
    if not train:
        if newest is None:
            yield warning("progress", "no update yet", "")
        return
    last = train[-1]
    loss = f", loss {last['loss']:.4g}" if isinstance(last.get("loss"), int | float) else ""
    yield good("progress", f"update {last['update']:,} of {last.get('updates', 0):,}{loss}")
    if last.get("loss") is None:
        yield bad(
            "loss", f"not finite at update {last['update']}", "lower the learning rate; see the windows of skipped updates in log.txt"
        )
    scores = [line for line in lines if line["kind"] == "heldout" and isinstance(line.get("heldout_loss"), int | float)]
    if len(scores) > 1:
        best = min(scores, key=lambda line: float(line["heldout_loss"]))
        last_loss, best_loss = float(scores[-1]["heldout_loss"]), float(best["heldout_loss"])
        text = f"held-out loss {last_loss:.4g} at update {scores[-1]['update']:,}, best {best_loss:.4g} at {best['update']:,}"
        worse = last_loss > 1.1 * best_loss
        yield warning("scores", text, "it is getting worse: lower the learning rate, or stop earlier") if worse else good("scores", text)


def _checkpoints(run: RunFolder, newest: Checkpoint | None, passed_over: list[str]) -> Iterator[Finding]:
    names = sorted(path.name for path in run.checkpoints.glob("update-*"))
    if newest is not None:
        age = timedelta(seconds=int(time.time() - newest.folder.stat().st_mtime))
        yield good("last good checkpoint", f"{newest.folder.name}, {size(newest.bytes)}, {age} old, verified; {len(names)} in all")
    elif names:
        yield bad("last good checkpoint", f"none of {len(names)} is whole", "restore one from a copy, or use another folder")
    else:
        yield warning("last good checkpoint", "none yet", "")
    for line in passed_over:
        yield bad(
            "damaged checkpoint", line, "look at the disk; the run goes on from an older one" if newest is not None else "look at the disk"
        )


def _troubles(lines: list[dict[str, Any]]) -> Iterator[Finding]:
    advice = {
        "checkpoint_failed": "free space",
        "skipped_update": "look at those windows, or lower the learning rate",
        "loss_spike": "look at those windows, or lower the learning rate",
        "rolled_back": "lower the learning rate if it goes on",
        "skipped_shard": "bring the shard back",
    }
    for event, what in advice.items():
        found = [line for line in lines if line["kind"] == "event" and line.get("event") == event]
        if found:
            yield warning(
                event.replace("_", " "), f"{len(found)} times, last at update {found[-1]['update']}: {found[-1].get('message')}"[:300], what
            )


def _data(config: RunConfig, newest: Checkpoint | None) -> Iterator[Finding]:
    if "***" in config.data.shards:
        yield good("data", f"{config.data.shards}: not looked at, its credentials are not kept")
        return
    try:
        stream = Stream(config.data.shards, "train", config.data.stream, config.train.global_batch)
        if newest is not None:
            stream.check(Cursor.from_dict(newest.progress.facts["cursor"]))
        yield good("data", f"{config.data.shards}: the corpus that the run began with")
    except (DataError, OSError, KeyError) as error:
        yield bad("data", str(error), "bring the shards back, or say where they are: data.shards=…")


def _room(run: RunFolder, config: AnyRunConfig, newest: Checkpoint | None) -> Iterator[Finding]:
    free = shutil.disk_usage(run.folder).free
    if newest is None:
        yield good("room", f"{size(free)} free")
    elif free < newest.bytes:
        yield bad("room", f"{size(free)} free, a checkpoint takes {size(newest.bytes)}", "free space, or lower checkpoint.keep_last")
    else:
        yield good("room", f"{size(free)} free, a checkpoint takes {size(newest.bytes)}")


def _permissions(path: Path) -> Iterator[Finding]:
    """Nobody else may write what a run will read again."""
    open_to_all = [entry for entry in (path, *path.rglob("*")) if not entry.is_symlink() and entry.stat().st_mode & 0o002]
    if open_to_all:
        yield warning(
            "permissions",
            f"{counted(len(open_to_all), 'file')} anyone may write, {open_to_all[0]} first",
            f"chmod -R o-w {shlex.quote(str(path))}",
        )
    else:
        yield good("permissions", f"nothing that anyone may write; yours: {'yes' if os.access(path, os.W_OK) else 'read-only'}")
