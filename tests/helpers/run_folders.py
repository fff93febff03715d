"""Run folders as a run leaves them, made at once: real settings, and report lines in the form of docs/metrics.md."""

import json
from pathlib import Path
from typing import Any

from launcher.config.load import dump_config, load_run
from launcher.run_folder.folder import environment

STARTED = 1_700_000_000.0
HOSTILE = "</title><script>alert(1)</script>"


def train(update: int, updates: int = 100, **more: Any) -> dict[str, Any]:
    """One train line. Every value follows from the update."""
    values = {"kind": "train", "update": update, "loss": 10.0 + 100.0 / update, "gradient_norm": 3.0 + 1 / update}
    values |= {"loss/mlm": 5.0 + 40.0 / update, "loss/cosine": 0.25 + 1 / update, "learning_rate": 1e-3 / update}
    values |= {"tokens_per_second": 1000.0 + update, "data_wait_share": 0.01, "memory_gb": 1.5, "skipped_updates": 0}
    values |= {"updates": updates, "tokens": 256 * update, "tokens_total": 256 * updates, "epoch": update / 50, "seconds_left": 60.0}
    return {**values, "time": STARTED + update, **more}


def heldout(update: int) -> dict[str, Any]:
    scores = {"heldout_loss": 4.0 + 10 / update, "heldout_top1": 0.25, "heldout_top5": 0.5}
    return {"kind": "heldout", "update": update, **scores, "tokens": 256 * update, "time": STARTED + update}


def event(update: int, name: str, message: str = "", **more: Any) -> dict[str, Any]:
    return {"kind": "event", "update": update, "event": name, "message": message, **more, "time": STARTED + update}


LINES = [
    event(0, "started", "100 updates, fp32, 1 rank"),
    *(train(update) for update in range(10, 101, 10)),
    event(50, "skipped_update", "loss not finite at update 50", windows=[1, 2]),
    heldout(50),
    heldout(100),
    event(100, "checkpoint", "checkpoint after update 100 written", seconds=0.5, bytes=1_000_000),
    event(100, "finished", "student in runs/x/student"),
]


def make_run(folder: Path, *settings: str, lines: list[dict[str, Any]] | None = None, done: bool = True) -> Path:
    """A run folder of configs/tiny.yaml with these settings and report lines. done: the student was exported."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(dump_config(load_run("tiny", [f"run.folder={folder}", *settings])))
    data = {"train": {"documents": 540, "tokens": 21_000}, "vocabulary_size": 29, "fingerprint": "f" * 64}
    (folder / "environment.json").write_text(json.dumps(environment() | {"data": data}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (LINES if lines is None else lines)))
    if done:
        (folder / "student").mkdir()
        report = {"parameters": 12_345, "bytes": 49_380, "elapsed_seconds": 65.0, "ranks": 1, "precision": "fp32"}
        (folder / "report.json").write_text(json.dumps(report | {"heldout": {"loss": 4.1, "top1": 0.25, "tokens": 900}}))
    return folder
