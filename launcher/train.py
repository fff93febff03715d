"""A run from start to report: the loop around kd's trainer. Numbers come up here; nothing is called back.

1. Open the run folder, find the newest good checkpoint, build the parts.
2. Update after update: take a batch, learn, report; evaluate, save and stop when due.
3. At the end: held-out scores, a last checkpoint, the student as a Hugging Face folder, report.json.

Every rank runs this same loop; rank 0 alone writes. What ranks must agree on (stop, save) they agree on once an update.
"""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from data_shards.stream import Cursor
from kd import checkpoint, distributed
from kd.checkpoint import Checkpoint
from kd.evaluate import MlmScores, evaluate_mlm
from kd.export import model_sizes, save_student
from kd.models import Encoder
from kd.trainer import UpdateReport
from launcher import config as configuration
from launcher import wiring
from launcher.config import RunConfig
from launcher.errors import LaunchError
from launcher.feed import Feed, heldout_batches
from launcher.layer_maps import as_facts, described
from launcher.meter import Meter, peak_memory_gb
from launcher.opening import newest_checkpoint, open_folder
from launcher.reporters import Reporters, trim
from launcher.run_folder import RunFolder, write_atomically
from launcher.signals import Exit, StopFlag
from launcher.wiring import Parts


def main(config: RunConfig, resume: bool = False) -> int:
    """Run or continue a configuration on this rank; the exit code (see launcher.signals.Exit).

    A run folder that already holds this configuration is continued; resume insists that there is something to continue.
    """
    stop = StopFlag.install()
    distributed.start(config.train.timeout_seconds)
    try:
        with open_folder(config) as folder:
            if folder.report.exists() and folder.student.exists():
                if distributed.rank() == 0:
                    print(f"already done: student in {folder.student}, scores in {folder.report}", flush=True)
                return int(Exit.DONE)
            saved = newest_checkpoint(folder)
            if resume and saved is None:
                raise LaunchError(f"{folder.checkpoints}: expected a checkpoint to resume from, got none; start without --resume")
            parts = wiring.build(config, saved)
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
            distributed.barrier()
            return int(code)
    finally:
        distributed.stop()


class Run:
    """One run on one rank, between its first and its last update."""

    def __init__(self, config: RunConfig, folder: RunFolder, parts: Parts, reporters: Reporters | None, stop: StopFlag) -> None:
        self.config = config
        self.folder = folder
        self.parts = parts
        self.trainer = parts.trainer
        self.reporters = reporters
        self.stop = stop
        self.meter = Meter()
        self.scores: MlmScores | None = None
        self.best = float("inf")
        self.saved_at = time.monotonic()
        self.saved_update = -1
        self.started = time.monotonic()
        self.elapsed_before = 0.0
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
                if self.parts.maps:
                    self.event("layer_map", f"cka: {described(self.parts.maps)}")
            else:
                again = f"; {dropped} later lines are dropped and written again" if dropped else ""
                self.event("resumed", f"going on after update {self.trainer.done} of {self.parts.updates}, {where}{again}")

    def go(self) -> Exit:
        """Update until done, stopped or hopeless."""
        while self.trainer.done < self.parts.updates:
            batches = self.feed.take()
            report = self.trainer.update(batches)
            self.announce()
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
            border = report.update == self.trainer.phase.end  # no line is about two phases
            if report.update % self.config.report.every_updates == 0 or border or last:
                self.report_line(report)
            if self._due(self.config.evaluate.every_updates, report.update) or last:
                self.evaluate(last)
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

    def announce(self) -> None:
        """Say that a phase began with this update."""
        phases, phase = self.trainer.phases, self.trainer.phase
        if phase.name and self.trainer.done == phase.first + 1:
            number = f"{phases.index(phase) + 1} of {len(phases)}"
            self.event("phase", f"phase {number}, {phase.name}: updates {phase.first + 1:,} to {phase.end:,}")

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
            **report.scheduled,
            "seconds_left": (updates - report.update) * values["seconds_per_update"],
            "memory_gb": peak_memory_gb(),
            "skipped_updates": self.trainer.skipped,
        }
        if report.phase:
            values["phase"] = report.phase
        del values["seconds_per_update"]
        self.line("train", values)

    def evaluate(self, everything: bool) -> None:
        """Held-out scores of the student as it is; all windows at the end, the configured number in between."""
        if self.parts.heldout is None:
            return
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
                checkpoint.prune(self.folder.checkpoints, self.config.checkpoint.keep_last, self.config.checkpoint.keep_best)
            self.event("checkpoint", f"checkpoint after update {self.trainer.done} written in {took:.1f} s")
        if self.scores is not None:
            self.best = min(self.best, self.scores.loss)
        self.scores = None if self.trainer.done < self.parts.updates else self.scores
        self.meter.pause(time.perf_counter() - started)
        return failed is None

    def finish(self) -> None:
        """The student as a Hugging Face folder, and report.json."""
        student = self.trainer.snapshot()
        if self.scores is None and self.parts.heldout is not None:  # continued after the last checkpoint, before the report
            self.scores = self._scores(student, None)
        if distributed.rank() != 0:
            return
        teachers = [member.model for member in self.config.members.values()]
        sizes = model_sizes(student)
        report: dict[str, Any] = {
            "name": self.config.name,
            "updates": self.trainer.done,
            "skipped_updates": self.trainer.skipped,
            "tokens": self.trainer.tokens,
            "elapsed_seconds": round(self._elapsed(), 1),
            "tokens_per_second": round(self.trainer.tokens / max(self._elapsed(), 1e-9), 1),
            "ranks": distributed.world_size(),
            "precision": self.parts.precision,
            "parameters": sizes.parameters,
            "bytes": sizes.bytes,
            "teacher": ", ".join(str(Path(model).resolve()) if Path(model).exists() else model for model in teachers) or None,
            "student": str(self.folder.student.resolve()),
            "heldout": asdict(self.scores) if self.scores is not None else None,
        }
        training = {k: report[k] for k in ("teacher", "updates", "tokens", "precision")} | {"heldout": report["heldout"]}
        training |= {"layers": self.config.student.layers}
        training |= {
            f"objective {phase.name}".rstrip(): [term.model_dump(mode="json") for term in phase.terms] for phase in self.trainer.phases
        }
        save_student(student, self.folder.student, training=training, tokenizer_folder=wiring.tokenizer_folder(self.config))
        write_atomically(self.folder.report, json.dumps(report, indent=1) + "\n")
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
        return evaluate_mlm(student, batches, vocabulary=self.trainer.vocabulary, over_ranks=distributed.sum_over_ranks)

    def _facts(self) -> dict[str, Any]:
        return {
            "cursor": self.parts.stream.cursor(self.feed.windows).as_dict(),
            "meter": self.meter.as_dict(),
            "best": None if self.best == float("inf") else self.best,
            "heldout_loss": self.scores.loss if self.scores is not None else None,
            "elapsed_seconds": self._elapsed(),
            "layer_maps": as_facts(self.parts.maps),
            "run_id": self.folder.wandb_id if distributed.rank() == 0 else None,
            "config": configuration.public(self.config),
        }

    def _elapsed(self) -> float:
        return self.elapsed_before + time.monotonic() - self.started

    def _agree(self) -> tuple[bool, bool]:
        """(someone was asked to stop, the clock says save): the same on every rank."""
        minutes = self.config.checkpoint.every_minutes
        due = minutes is not None and distributed.rank() == 0 and time.monotonic() - self.saved_at >= 60 * minutes
        flags = torch.tensor([self.stop.requested is not None, due], dtype=torch.float32, device=distributed.device())
        asked, save = distributed.sum_over_ranks(flags).tolist()
        return asked > 0, save > 0

    def _is_best(self) -> bool:
        return self.config.checkpoint.keep_best > 0 and self.scores is not None and self.scores.loss < self.best

    @staticmethod
    def _due(every: int | None, update: int) -> bool:
        return every is not None and update % every == 0
