"""`stillhouse report RUN…`, and report.html that each run leaves in its folder at its end."""

import argparse
from collections.abc import Callable
from pathlib import Path

from launcher.errors import LaunchError
from launcher.reporting.background import BackgroundQueue
from launcher.run_page.page import page
from launcher.run_page.record import read_run
from stillhouse.errors import one_line
from stillhouse.files import write_atomically

PAGE = "report.html"
FINISH_SECONDS = 30.0
"""For the page of a run that ends: its processes wait no longer."""
MOST_RUNS = 8


def run(arguments: argparse.Namespace) -> int:
    """Write the page of the runs and print its path."""
    folders = [Path(folder) for folder in arguments.runs]
    if len(folders) > MOST_RUNS:
        raise LaunchError(f"stillhouse report: expected at most {MOST_RUNS} runs, got {len(folders)}; leave some out")
    out = Path(arguments.out or (folders[0] / PAGE if len(folders) == 1 else PAGE))
    write_page(folders, out)
    print(out)
    return 0


def write_page(folders: list[Path], out: Path, ended: bool = False) -> None:
    """Write the page of some runs. ended: see `read_run`. Raises LaunchError."""
    text = page([read_run(folder, ended) for folder in folders])
    try:
        write_atomically(out, text.encode("utf-8", "replace"), sync=False)
    except OSError as error:
        raise LaunchError(f"{out}: expected to write the page, got {error.strerror}; choose another --out") from None


def write_at_end(folder: Path, failed: Callable[[str], None]) -> None:
    """Write report.html into the folder of a run that ends, on a thread that is waited for FINISH_SECONDS.

    failed: called with a sentence where that fails. Nothing is raised.
    """
    problems: list[str] = []
    queue = BackgroundQueue(PAGE, lambda error: problems.append(one_line(error)))
    queue.call(write_page, [folder], folder / PAGE, True)
    if not queue.finish(FINISH_SECONDS):
        problems.append(f"expected it within {FINISH_SECONDS:g} s, got nothing")
    if problems:
        failed(f"{PAGE} not written ({problems[0]}); `stillhouse report {folder}` writes it")
