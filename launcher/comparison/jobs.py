"""Ordinary runs as processes, one after the other or side by side: what `compare` and `chain` are made of.

1. A `Job` is a run folder and the words that launcher/run.py is given; `done` says whether there is anything left to do.
2. `run_jobs` starts each on its ranks, shows how far they are, and hands every finished one to its caller.
3. A signal is passed on: the runs save, and starting the same jobs again continues them. A run that somebody else still owns is waited for.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from data_shards.stream.stream import Stream
from launcher.config.derived import updates_of
from launcher.config.run_config import RunConfig
from launcher.errors import LaunchError
from launcher.process.signals import Exit, StopFlag
from launcher.process.start_ranks import Processes, child_environment
from launcher.run_folder.lock import owner_of
from launcher.run_folder.metrics_file import last_train_line
from launcher.text import duration
from stillhouse.files import ROOT
from stillhouse.lazy import lazy_module

if TYPE_CHECKING:
    import torch

    from kd.distributed import process_group
else:
    torch = lazy_module("torch")
    process_group = lazy_module("kd.distributed.process_group")

SCRIPT = ROOT / "launcher" / "run.py"
OUTPUT = "output.txt"
POLL_SECONDS = 0.5
STOPPING = "the running runs save a checkpoint and end; start again to continue"
ASKING_SECONDS = 0.1  # for who owns a folder, before the loop goes on without an answer


@dataclass(frozen=True)
class Job:
    """One run: what people call it, its folder, its configuration, the key=value words after that, and how many updates it has."""

    name: str
    folder: Path
    config: str
    words: tuple[str, ...]
    updates: int

    @property
    def done(self) -> bool:
        """True if the run has ended with a student and a report."""
        return (self.folder / "report.json").is_file() and (self.folder / "student").is_dir()

    @property
    def updates_done(self) -> int:
        """Number of updates in the run's last report line."""
        line = last_train_line(self.folder)
        return self.updates if self.done else 0 if line is None else int(line["update"])


def run_jobs(
    jobs: Sequence[Job],
    ranks: int,
    side_by_side: int,
    console: Console,
    finished: Callable[[Job, int], None],
    stop: StopFlag | None = None,
) -> int:
    """Run what is not done yet; finished(job, exit code) is called in this process for every job, those done before included.

    stop: the caller's flag, if it catches signals itself.

    Exit.DONE, or Exit.FAILED when a run failed (the others go on), or Exit.SAVED_AFTER_SIGNAL when a signal ended it.
    """
    check_devices(ranks, side_by_side)
    stop = stop or StopFlag.install()
    waiting, code = list(jobs), Exit.DONE
    running: dict[Job, tuple[Processes, int]] = {}
    slots = list(range(side_by_side))
    told = False
    owners: dict[Job, Future[str | None]] = {}  # asked beside the loop: an owner on another host is listened for some seconds
    with _bars(jobs, console) as show, ThreadPoolExecutor(side_by_side) as asking:
        while waiting or running:
            if stop.requested:
                if running and not told:
                    console.print(f"{stop.requested}: {STOPPING}", soft_wrap=True, highlight=False)
                told = True
                waiting.clear()
                for processes, _ in running.values():
                    processes.stop()
            over = {job: ended for job, (processes, _) in running.items() if (ended := processes.poll()) is not None}
            slots += [running.pop(job)[1] for job in over]
            for job in [job for job in waiting if job.done]:
                waiting.remove(job)
                finished(job, Exit.DONE)
            for job in list(waiting):
                if not slots:
                    owners.clear()  # too old once there is a slot again
                    break
                owners[job] = owners.get(job) or asking.submit(owner_of, job.folder)
                if wait([owners[job]], timeout=ASKING_SECONDS).done and owners.pop(job).result() is None and not job.done:
                    waiting.remove(job)
                    running[job] = (_start(job, ranks, side_by_side, slots[0]), slots.pop(0))
            show(list(running))
            for job, ended in over.items():  # after the next have started: this may take a while
                if not stop.requested:
                    code = code if ended == Exit.DONE else Exit.FAILED
                    finished(job, ended)
            time.sleep(POLL_SECONDS)
    return Exit.SAVED_AFTER_SIGNAL if stop.requested else code


def updates_in(config: RunConfig) -> int:
    """Number of updates of a configuration. Epochs need the corpus."""
    if config.train.epochs is not None:
        return updates_of(config, Stream(config.data.shards, "train", config.data.stream, config.train.global_batch))
    return updates_of(config, None)


def last_words(job: Job) -> str:
    """The last message of a run that ended, from its output."""
    path = job.folder / OUTPUT
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    messages = [line for line in lines if line.startswith("stillhouse: ")] or [line for line in lines if line.strip()]
    return messages[-1].removeprefix("stillhouse: ").strip() if messages else "it said nothing"


def check_devices(ranks: int, side_by_side: int) -> None:
    """LaunchError where there are fewer GPUs than ranks, or fewer than all runs at a time need; runs share processors as they can."""
    here = torch.cuda.device_count() if process_group.device().type == "cuda" else None
    if here is not None and ranks * side_by_side > here:
        raise LaunchError(f"--ranks x --jobs: expected at most {here}, the GPUs here, got {ranks} x {side_by_side}; lower either")


def job_environment(ranks: int, side_by_side: int = 1, slot: int = 0) -> dict[str, str]:
    """The environment of one of several runs: its share of the processors (unless OMP_NUM_THREADS is set) or of the GPUs."""
    inherited = child_environment()
    inherited.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // (ranks * side_by_side))))
    if process_group.device().type == "cuda" and side_by_side > 1:
        visible = inherited.get("CUDA_VISIBLE_DEVICES") or ",".join(str(gpu) for gpu in range(torch.cuda.device_count()))
        inherited["CUDA_VISIBLE_DEVICES"] = ",".join(visible.split(",")[slot * ranks : (slot + 1) * ranks])
    return inherited


def _start(job: Job, ranks: int, side_by_side: int, slot: int) -> Processes:
    job.folder.mkdir(parents=True, exist_ok=True)
    command = [str(SCRIPT), "--config", job.config, *job.words]
    return Processes(command, ranks, job.folder / OUTPUT, job_environment(ranks, side_by_side, slot))


@contextmanager
def _bars(jobs: Sequence[Job], console: Console) -> Iterator[Callable[[Sequence[Job]], None]]:
    """show(running): one bar for all updates and one for each run that is going; on a terminal alone."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}", markup=False),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bars:
        before = sum(job.updates_done for job in jobs)
        started = time.monotonic()
        total = bars.add_task("all runs, updates", total=sum(job.updates for job in jobs), facts="")
        tasks: dict[Job, TaskID] = {}

        def show(running: Sequence[Job]) -> None:
            if not console.is_terminal:
                return
            for job in [job for job in tasks if job not in running]:
                bars.remove_task(tasks.pop(job))
            for job in running:
                line = last_train_line(job.folder) or {}
                facts = f"loss {line['loss']:.3f}" if line.get("loss") is not None else ""
                tasks[job] = tasks.get(job) or bars.add_task(job.name, total=job.updates, facts="")
                bars.update(tasks[job], completed=int(line.get("update", 0)), facts=facts)
            done = sum(job.updates_done for job in jobs)
            left = (sum(job.updates for job in jobs) - done) * (time.monotonic() - started) / max(done - before, 1)
            bars.update(total, completed=done, facts=f"{duration(left)} left" if done > before else "")

        yield show
