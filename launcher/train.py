"""A run from start to report: the loop around kd's trainer. Numbers come up here; nothing is called back.

1. Open the run folder, find the newest good checkpoint, build the parts.
2. Update after update: take a batch, learn, report; evaluate, save and stop when due.
3. At the end: held-out scores, a last checkpoint, the student as a Hugging Face folder, report.json.

Every rank runs this same loop; rank 0 alone writes. What ranks must agree on (stop, save) they agree on once an update.
"""

import socket
import time
from collections.abc import Iterator
from typing import Any

import torch

from data_shards.stream import Cursor
from kd import checkpoint, distributed
from kd.batch import Batch
from kd.checkpoint import Checkpoint
from kd.evaluate import MlmScores, evaluate_mlm
from kd.models import Encoder
from kd.trainer import UpdateReport
from kd.whereabouts import Whereabouts
from launcher import config as configuration
from launcher import wiring
from launcher.agreement import agree
from launcher.config import RunConfig
from launcher.ending import write_student
from launcher.errors import Agreed
from launcher.feed import Feed, heldout_batches
from launcher.meter import Meter, peak_memory_gb
from launcher.opening import meet, newest_checkpoint, open_folder
from launcher.reporters import Reporters, trim
from launcher.run_folder import RunFolder, tell_progress
from launcher.signals import Exit, StopFlag
from launcher.stragglers import gather, straggler
from launcher.watch import say_aloud, watching
from launcher.wiring import Parts


def main(config: RunConfig, resume: bool = False) -> int:
    """Run or continue a configuration on this rank; the exit code (see launcher.signals.Exit).

    A run folder that already holds this configuration is continued; resume insists that there is something to continue.
    """
    stop = StopFlag.install()
    here = Whereabouts()
    meet(config.train.timeout_seconds)
    try:
        with watching(here, config.train.timeout_seconds, say_aloud):
            agree(config)
            return _run(config, resume, stop, here)
    finally:
        distributed.stop()


def _run(config: RunConfig, resume: bool, stop: StopFlag, here: Whereabouts) -> int:
    """What main promises, between the meeting of the ranks and their parting."""
    with open_folder(config) as folder:
        if folder.report.exists() and folder.student.exists():
            if distributed.rank() == 0:
                print(f"already done: student in {folder.student}, scores in {folder.report}", flush=True)
            return int(Exit.DONE)
        saved = newest_checkpoint(folder)
        if resume and saved is None:
            raise Agreed(f"{folder.checkpoints}: expected a checkpoint to resume from, got none; start without --resume")
        here.enter("building the models")
        parts = wiring.build(config, saved, here)
        reporters, dropped = None, 0
        if distributed.rank() == 0:
            dropped = trim(folder.metrics, parts.trainer.done)
            reporters = Reporters(
                config.report, folder.folder, name=config.name, config=configuration.public(config), run_id=folder.wandb_id
            )
        run = Run(config, folder, parts, reporters, stop)
        run.begin(saved, dropped)
        code = Exit.FAILED
        try:
            code = run.go()
        finally:
            run.feed.close()
            if reporters is not None:
                reporters.close(int(code))
        here.enter("parting")
        distributed.barrier()
        return int(code)


class Run:
    """One run on one rank, between its first and its last update."""

    def __init__(self, config: RunConfig, folder: RunFolder, parts: Parts, reporters: Reporters | None, stop: StopFlag) -> None:
        self.config = config
        self.folder = folder
        self.parts = parts
        self.trainer = parts.trainer
        self.here = parts.trainer.here
        self.reporters = reporters
        self.stop = stop
        self.meter = Meter()
        self.scores: MlmScores | None = None
        self.best = float("inf")
        self.saved_at = time.monotonic()
        self.saved_update = -1
        self.started = time.monotonic()
        self.elapsed_before = 0.0
        self.hosts = distributed.texts(socket.gethostname())
        self.straggler: int | None = None
        """The rank that was last said to be much slower than the others."""
        self.feed: Feed

    def begin(self, saved: Checkpoint | None, dropped: int) -> None:
        """Stand where the checkpoint stands and say so. dropped: how many lines of metrics.jsonl lay behind it."""
        windows = 0
        if saved is not None:
            facts = saved.progress.facts
            cursor = Cursor.from_dict(facts["cursor"])
            self.parts.stream.check(cursor)
            windows = cursor.windows
            self.meter = Meter.from_dict(facts["meter"])
            self.best = facts["best"] if facts["best"] is not None else float("inf")
            self.elapsed_before = facts["elapsed_seconds"]
            self.saved_update = self.trainer.done
        rank, world = distributed.rank(), distributed.world_size()
        self.feed = Feed(self.parts.stream, self.config.train, rank=rank, world=world, update=self.trainer.done, windows=windows)
        if self.reporters is not None:
            where = f"{self.parts.precision}, {world} rank{'s' if world > 1 else ''}"
            if saved is None:
                self.event("started", f"{self.parts.updates} updates, {where}")
            else:
                again = f"; {dropped} later lines are dropped and written again" if dropped else ""
                self.event("resumed", f"going on after update {self.trainer.done} of {self.parts.updates}, {where}{again}")

    def go(self) -> Exit:
        """Update until done, stopped or hopeless."""
        while self.trainer.done < self.parts.updates:
            self.here.begin(self.trainer.done + 1, "data")
            batches = self.feed.take()
            report = self.trainer.update(batches)
            self.meter.add(report)
            if not report.applied:
                windows = sorted(int(w) for batch in batches for w in batch.windows)
                self.event(
                    "skipped_update", f"update {report.update}: loss or gradient not finite, weights left as they were; windows {windows}"
                )
                if self.trainer.bad_in_a_row >= self.config.train.max_bad_updates:
                    self.event(
                        "stopped",
                        f"{self.trainer.bad_in_a_row} updates in a row were not finite; lower the learning rate, or look at those windows",
                    )
                    return Exit.NOT_FINITE
            last = report.update == self.parts.updates
            self.here.enter("reporting")
            if report.update % self.config.report.every_updates == 0 or last:
                self.report_line(report)
            if self._due(self.config.evaluate.every_updates, report.update) or last:
                self.evaluate(last)
            self.here.enter("agreeing")
            asked, minutes = self._agree()
            if last or asked or minutes or self._due(self.config.checkpoint.every_updates, report.update) or self._is_best():
                saved = self.save()
                if asked and not last:
                    if not saved:
                        return Exit.FAILED
                    self.event("stopped", f"saved after update {report.update}; start again to continue")
                    return Exit.SAVED_AFTER_SIGNAL
                if last and not saved:
                    return Exit.FAILED
        self.finish()
        return Exit.DONE

    def report_line(self, report: UpdateReport) -> None:
        """The train line: means since the last one."""
        waited, self.feed.waited_seconds = self.feed.waited_seconds, 0.0
        values = self.meter.take(waited)
        updates = self.parts.updates
        values |= {
            "updates": updates,
            "tokens": self.trainer.tokens,
            "tokens_total": round(self.trainer.tokens / report.update * updates),
            "epoch": self.feed.windows / self.parts.stream.windows_per_epoch,
            "learning_rate": report.learning_rate,
            "seconds_left": (updates - report.update) * values["seconds_per_update"],
            "memory_gb": peak_memory_gb(),
            "skipped_updates": self.trainer.skipped,
        }
        del values["seconds_per_update"]
        self.line("train", values)
        self._report_straggler()

    def _report_straggler(self) -> None:
        """Name the rank that the others wait for, once for as long as it is the same one. Collective."""
        found = straggler(gather(self.here.take_busy()))
        rank = found.rank if found is not None else None
        if found is not None and rank != self.straggler:
            self.event("straggler", found.sentence(self.hosts))
        self.straggler = rank

    def evaluate(self, everything: bool) -> None:
        """Held-out scores of the student as it is; all windows at the end, the configured number in between."""
        if self.parts.heldout is None:
            return
        self.here.enter("evaluation")
        started = time.perf_counter()
        dtype = torch.bfloat16 if self.parts.precision == "bf16" else torch.float32
        student = self.trainer.snapshot(torch.float32 if everything else dtype)
        self.scores = self._scores(student, None if everything else self.config.evaluate.windows)
        self.line(
            "heldout",
            {f"heldout_{name}": getattr(self.scores, name) for name in ("loss", "top1", "top5")} | {"tokens": self.trainer.tokens},
        )
        self.meter.pause(time.perf_counter() - started)

    def save(self) -> bool:
        """Write a checkpoint and prune; False if it could not be written (said, and the last good one kept)."""
        started = time.perf_counter()
        if self.trainer.done == self.saved_update:
            return True
        self.here.enter("saving")
        failed = self.trainer.save(self.folder.checkpoints, self._facts())
        self.saved_at = time.monotonic()
        took = time.perf_counter() - started
        if failed is not None:
            self.event(
                "checkpoint_failed", f"checkpoint after update {self.trainer.done} not written ({failed}); the last good one is kept"
            )
        else:
            self.saved_update = self.trainer.done
            if distributed.rank() == 0:
                tell_progress(self.trainer.done)
                checkpoint.prune(self.folder.checkpoints, self.config.checkpoint.keep_last, self.config.checkpoint.keep_best)
            self.event("checkpoint", f"checkpoint after update {self.trainer.done} written in {took:.1f} s")
        if self.scores is not None:
            self.best = min(self.best, self.scores.loss)
        self.scores = None if self.trainer.done < self.parts.updates else self.scores
        self.meter.pause(time.perf_counter() - started)
        return failed is None

    def finish(self) -> None:
        """The student as a Hugging Face folder, and report.json."""
        self.here.enter("exporting")
        student = self.trainer.snapshot()
        if self.scores is None and self.parts.heldout is not None:  # continued after the last checkpoint, before the report
            self.scores = self._scores(student, None)
        if distributed.rank() != 0:
            return
        facts = {"updates": self.trainer.done, "skipped_updates": self.trainer.skipped, "tokens": self.trainer.tokens}
        write_student(self.config, self.folder, student, self.scores, facts, self._elapsed(), self.parts.precision)
        self.event("finished", f"student in {self.folder.student}")

    def line(self, kind: str, values: dict[str, Any]) -> None:
        """One line, from rank 0."""
        if self.reporters is not None:
            self.reporters.line({"kind": kind, "update": self.trainer.done, **values})

    def event(self, event: str, message: str) -> None:
        """Something that happened, from rank 0."""
        self.line("event", {"event": event, "message": message})

    def _scores(self, student: Encoder, windows: int | None) -> MlmScores:
        assert self.parts.heldout is not None
        rank, world = distributed.rank(), distributed.world_size()
        batches = heldout_batches(self.parts.heldout, self.config.evaluate.batch, windows, rank=rank, world=world)
        return evaluate_mlm(student, self._touched(batches), vocabulary=self.trainer.vocabulary, over_ranks=distributed.sum_over_ranks)

    def _touched(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches; each is a sign of life."""
        for batch in batches:
            self.here.touch()
            yield batch

    def _facts(self) -> dict[str, Any]:
        return {
            "cursor": self.parts.stream.cursor(self.feed.windows).as_dict(),
            "meter": self.meter.as_dict(),
            "best": None if self.best == float("inf") else self.best,
            "heldout_loss": self.scores.loss if self.scores is not None else None,
            "elapsed_seconds": self._elapsed(),
            "run_id": self.folder.wandb_id if distributed.rank() == 0 else None,
            "config": configuration.public(self.config),
        }

    def _elapsed(self) -> float:
        return self.elapsed_before + time.monotonic() - self.started

    def _agree(self) -> tuple[bool, bool]:
        """(someone was asked to stop, the clock says save): the same on every rank. Raises where another run has the folder now."""
        minutes = self.config.checkpoint.every_minutes
        due = minutes is not None and distributed.rank() == 0 and time.monotonic() - self.saved_at >= 60 * minutes
        other = self.folder.ownership.taken_over if self.folder.ownership is not None else None
        flags = [self.stop.requested is not None, due, other is not None]
        asked, save, lost = distributed.sum_over_ranks(torch.tensor(flags, dtype=torch.float32, device=distributed.device())).tolist()
        if lost:
            who = distributed.from_rank_zero(other or "")
            raise Agreed(f"run.folder: expected {self.folder.folder} to stay this run's, got another run in it ({who}); this one ends")
        return asked > 0, save > 0

    def _is_best(self) -> bool:
        return self.config.checkpoint.keep_best > 0 and self.scores is not None and self.scores.loss < self.best

    @staticmethod
    def _due(every: int | None, update: int) -> bool:
        return every is not None and update % every == 0
