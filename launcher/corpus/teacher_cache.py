"""`stillhouse cache`: stores a teacher's hidden states, so that runs with `teacher.mode: cached` skip its forward pass.

1. The configuration's terms decide which states are stored: those of all positions, or of masked positions only.
2. The teacher reads the run's windows in the run's micro-batches, whole or split over the ranks (--mode).
3. Each rank writes a file from time to time, and rank 0 lists the files in cache.json. After a kill, the same command continues from there.

A folder may hold the states of one teacher for several corpora, orders or maskings.
"""

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from shutil import disk_usage

import torch
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from data_shards.corpus import Corpus
from data_shards.stream.stream import Stream
from kd.batch import Batch
from kd.distributed import process_group
from kd.distributed.rank_progress import BUILDING, WRITING, RankProgress
from kd.models.loading import load_mlm, weights_digest
from kd.teacher.hidden_state_cache import DTYPES, HEADER, CacheHeader, CacheWriter, Positions, Precision, kept, read_header, row_keys
from kd.teacher.settings import MemberSettings
from kd.teacher.teachers import make_teacher
from launcher.config.derived import teacher_attention
from launcher.config.load import load_config
from launcher.config.run_config import RunConfig
from launcher.errors import LaunchError
from launcher.planning.checks import positions_asked
from launcher.planning.phases import objectives_of
from launcher.planning.plan import make_plan
from launcher.planning.shape_models import meta_model, meta_student
from launcher.process import network, preflight
from launcher.process.rank_environment import rank_and_world
from launcher.process.rank_zero import on_rank_zero
from launcher.reporting.console import PipeSafeConsole
from launcher.text import duration, size
from launcher.training.batches import BatchLoader
from launcher.training.build import data_of
from launcher.training.rank_consistency import agree
from launcher.training.rank_watch import say_aloud, watching
from launcher.training.start import meet

SEGMENT_BYTES = 128e6  # that a rank collects in memory before it writes a file


def run(arguments: argparse.Namespace) -> int:
    """Fill the cache of each cached teacher of a configuration. arguments.corpus: the open corpus."""
    preflight.check_packages()
    config = load_config(arguments.config, arguments.settings)
    if not any(member.cache for member in config.members.values()):
        raise LaunchError("teacher.mode: expected cached, and a folder, got neither; add teacher.mode=cached teacher.cache=FOLDER")
    rank, world = rank_and_world()
    corpus: Corpus = arguments.corpus
    made = make_plan(uncached(config, arguments.mode), world, corpus)
    teachers = [meta_model(member.model) for member in config.members.values()]
    objectives = objectives_of(config, made.updates, meta_student(config.student, teachers[0]), teachers)
    preflight.check_meeting(rank, world)
    network.choose_interface()
    progress = RankProgress()
    meet(config.train.timeout_seconds)
    try:
        with watching(progress, config.train.timeout_seconds, say_aloud):
            agree(config, data_of(config, corpus).contents)
            for number, (name, member) in enumerate(config.members.items()):
                if member.cache is not None:
                    positions = arguments.positions or positions_asked(objectives, number)
                    Filling(config, corpus, name, member, arguments.mode, made.precision, positions, progress).go(made.updates)
            process_group.barrier()
    finally:
        process_group.stop()
    return 0


def uncached(config: RunConfig, mode: str) -> RunConfig:
    """The same run with teachers that compute their states."""
    assert config.teacher is not None
    working = {"mode": mode, "cache": None}
    if not isinstance(config.teacher, list):
        return config.model_copy(update={"teacher": config.teacher.model_copy(update=working)})
    return config.model_copy(
        update={"teacher": [member.model_copy(update=working) if member.cache else member for member in config.teacher]}
    )


class Filling:
    """One teacher's cache, filled by all ranks together. name: the key of the teacher in the configuration."""

    def __init__(
        self,
        config: RunConfig,
        corpus: Corpus,
        name: str,
        member: MemberSettings,
        mode: str,
        precision: str,
        positions: Positions,
        progress: RankProgress,
    ) -> None:
        assert member.cache is not None
        self.train = config.train
        self.name = name
        self.folder = Path(member.cache)
        self.settings = member.model_copy(update={"mode": mode, "cache": None})
        self.precision: Precision = member.precision or ("bf16" if precision == "bf16" else "fp32")
        self.encoder = load_mlm(self.settings.model, dtype=DTYPES[self.precision])
        self.encoder.use_attention(teacher_attention(config, None)[self.precision])  # a run's teachers take it too: the same states
        self.positions = positions
        self.masked_share = config.data.masking.rate
        self.progress = progress
        self.console = PipeSafeConsole()
        self.stream = Stream(corpus, "train", config.data.stream, config.train.global_batch)

    def go(self, updates: int) -> None:
        """Fill the cache with the windows of the first `updates` updates. Collective."""
        with self._owned():
            self.progress.enter(BUILDING)
            header = self._begun()
            done = header.covers.get(self.stream.fingerprint, 0) // self.train.global_batch
            if done < updates:
                header = self._fill(header, done, updates)
            if process_group.rank() == 0:
                which = "all" if header.positions == "all" else "masked"
                summary = f"{header.rows:,} windows, {header.tokens:,} states ({which} positions), {size(header.bytes)}"
                self.console.print(f"{self.name}: {summary} in {self.folder}", soft_wrap=True, highlight=False)

    def _begun(self) -> CacheHeader:
        """The folder's header, or a new one. Raises LaunchError on every rank for a folder with other states."""
        sizes = (self.encoder.family.name, self.encoder.layers, self.encoder.width)
        digest = weights_digest(self.encoder) if process_group.rank() == 0 else ""
        fresh = CacheHeader(digest, *sizes, self.precision, self.positions)
        header = on_rank_zero(lambda: self._taken(fresh))
        return CacheHeader(**json.loads(process_group.from_rank_zero(json.dumps(asdict(header or fresh)))))

    def _taken(self, fresh: CacheHeader) -> CacheHeader:
        """On rank 0: the folder's header, checked against the new one. Files of a killed command are removed."""
        if not (self.folder / HEADER).exists():
            fresh.write(self.folder)
        header, where = read_header(self.folder), f"{self.name}.cache {self.folder}"
        for name in ("precision", "teacher"):
            if (expected := getattr(fresh, name)) != (stored := getattr(header, name)):
                raise LaunchError(f"{where}: expected states of {name} {expected[:12]}, got {stored[:12]}; name another folder")
        if fresh.positions == "all" and header.positions == "masked":
            raise LaunchError(f"{where}: expected all positions, as the objective asks, got masked ones alone; name another folder")
        for file in [*self.folder.glob("states-*"), *self.folder.glob(".states-*")]:
            if file.name not in header.files:
                file.unlink()
        return header

    def _fill(self, header: CacheHeader, done: int, updates: int) -> CacheHeader:
        rank, world = process_group.rank(), process_group.world_size()
        self.positions = header.positions
        update_bytes = self._bytes_an_update(header.width)
        on_rank_zero(lambda: self._check_room(update_bytes * (updates - done)))
        teacher = make_teacher(self.settings, self.precision, process_group.device(), self.encoder)
        writer, file_updates = CacheWriter(self.folder, rank), max(1, int(SEGMENT_BYTES * world / update_bytes))
        loader = BatchLoader(self.stream, self.train, rank=rank, world=world, update=done, windows=done * self.train.global_batch)
        try:
            with self._progress(done, updates) as show:
                for update in range(done, updates):
                    self.progress.begin(update + 1, "data")
                    for batch in loader.next_update():
                        self.progress.enter("teacher")
                        nothing = torch.zeros_like(batch.real)
                        self._keep(writer, batch, teacher(batch.to(process_group.device()), nothing.to(process_group.device())).last_hidden)
                    if (update + 1 - done) % file_updates == 0 or update + 1 == updates:
                        header = self._publish(header, writer, update + 1)
                    show(update + 1)
        finally:
            loader.close()
        return header

    def _keep(self, writer: CacheWriter, batch: Batch, last: torch.Tensor) -> None:
        """Add a micro-batch's rows. A row of padding only, from a skipped shard, has no states."""
        stored = kept(batch, self.positions)
        counts = stored.sum(1)
        rows = last[stored.to(last.device)].cpu().split(counts.tolist())
        real = counts.nonzero()[:, 0].tolist()
        writer.add(row_keys(batch)[real], [rows[number] for number in real])

    def _publish(self, header: CacheHeader, writer: CacheWriter, updates: int) -> CacheHeader:
        """Write the ranks' rows as files, then a header that lists them; the header. Collective."""
        self.progress.enter(WRITING)
        files, failed = {}, ""
        try:
            files = writer.flush(len({name.split("-")[1] for name in header.files}))
        except OSError as error:
            failed = str(error) or repr(error)
        written = [json.loads(text) for text in process_group.texts(json.dumps([files, failed]))]
        covers = header.covers | {self.stream.fingerprint: updates * self.train.global_batch}
        new_files = {name: facts for files, _ in written for name, facts in files.items()}
        header = replace(header, covers=covers, files=header.files | new_files)

        def finish() -> None:
            problem = next((failed for _, failed in written if failed), "")
            try:
                if not problem:
                    header.write(self.folder)
            except OSError as error:
                problem = str(error)
            if problem:
                raise LaunchError(f"{self.folder}: expected a folder that can be written, got {problem}; free space, and start again")

        on_rank_zero(finish)
        return header

    def _bytes_an_update(self, width: int) -> float:
        """The approximate size of an update's states."""
        tokens = self.stream.tokens_per_epoch / self.stream.windows_per_epoch * self.train.global_batch
        return tokens * (1.0 if self.positions == "all" else self.masked_share) * width * DTYPES[self.precision].itemsize

    def _check_room(self, needed: float) -> None:
        free = disk_usage(self.folder).free
        if needed > free:
            raise LaunchError(
                f"{self.name}.cache {self.folder}: expected {size(needed)} free for hidden states, got {size(free)}; "
                "free space, shorten the run, or let the terms look at masked positions alone"
            )

    @contextmanager
    def _owned(self) -> Iterator[None]:
        """Hold the folder's lock. Raises LaunchError on every rank when another process fills it."""
        lock = FileLock(self.folder / ".filling")

        def take() -> None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                lock.acquire(timeout=0)
            except Timeout:
                raise LaunchError(f"{self.folder}: expected no other process that fills it, got one; wait for it") from None
            except OSError as error:
                raise LaunchError(f"{self.folder}: expected a folder that can be written, got {error}; choose another") from None

        on_rank_zero(take)
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _progress(self, done: int, updates: int) -> Iterator["FillProgress"]:
        """A bar on rank 0's terminal, or a line a minute without a terminal."""
        columns = (TextColumn("caching"), BarColumn(), TextColumn("{task.completed:,}/{task.total:,} updates"), TimeRemainingColumn())
        on_terminal = self.console.is_terminal and process_group.rank() == 0
        with Progress(*columns, console=self.console, transient=True, disable=not on_terminal) as bar:
            yield FillProgress(bar, done, updates, self.console if process_group.rank() == 0 and not on_terminal else None)


class FillProgress:
    """The updates that are done, as a bar or as lines."""

    def __init__(self, bar: Progress, done: int, updates: int, plain: Console | None) -> None:
        self.bar, self.done, self.updates, self.plain = bar, done, updates, plain
        self.task = bar.add_task("", total=updates, completed=done)
        self.started = self.shown = time.monotonic()

    def __call__(self, update: int) -> None:
        """Show that `update` updates are done."""
        self.bar.update(self.task, completed=update)
        now = time.monotonic()
        if self.plain is not None and now - self.shown >= 60:
            self.shown = now
            left = (now - self.started) / (update - self.done) * (self.updates - update)
            self.plain.print(f"caching: {update:,}/{self.updates:,} updates, {duration(left)} left", highlight=False)
