"""The rows in the files that W&B wrote into a run folder, read by W&B's own reader (`wandb leet inspect`)."""

import json
import subprocess
from pathlib import Path

from launcher.reporting.wandb_sent import KINDS

READ_SECONDS = 60.0  # for one file; 100,000 rows take about two


def rows_held(core: str, folder: Path, run_id: str) -> set[tuple[str, int]]:
    """(kind, update) of each report line that W&B's files of a run hold. Files that a kill cut off are read as far as they go.

    core: path of W&B's program.
    """
    held: set[tuple[str, int]] = set()
    for file in sorted(folder.glob(f"wandb/*run-*/run-{run_id}.wandb")):
        command = [core, "leet", "inspect", "--no-observability", "--json", "--run-file", str(file)]
        try:
            text = subprocess.run(command, capture_output=True, text=True, timeout=READ_SECONDS, check=False).stdout
        except (OSError, subprocess.SubprocessError):
            continue
        for line in text.splitlines():
            held |= _lines_of(line)
    return held


def _lines_of(record: str) -> set[tuple[str, int]]:
    """The report lines in one record. A row of W&B has all lines of one update."""
    try:
        row = json.loads(record)["history"]["item"]
        return {(kind, int(row["update"])) for kind in KINDS if any(name.startswith(f"{kind}/") for name in row)}
    except (ValueError, KeyError, TypeError):
        return set()


def as_ranges(updates: list[int]) -> str:
    """`1 to 4, 9` for 1, 2, 3, 4, 9; after the fifth range only how many there are."""
    ranges: list[list[int]] = []
    for update in sorted(updates):
        if ranges and update == ranges[-1][1] + 1:
            ranges[-1][1] = update
        else:
            ranges.append([update, update])
    words = [f"{first} to {last}" if last > first else f"{first}" for first, last in ranges[:5]]
    return ", ".join(words) + (f" and more ({len(updates)} in all)" if len(ranges) > 5 else "")
