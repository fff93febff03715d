"""The training loop of a run, around kd's trainer, on every rank.

1. Continue from the checkpoint, if any (launcher/training/session.py opens the folder and builds the objects).
2. For each update: load a batch, train, report; evaluate, save and stop when due. Ranks agree once per update on stopping and saving.
3. At the end: held-out scores, a last checkpoint, the student as a Hugging Face folder, report.json. Only rank 0 writes files.
"""

import time
from contextlib import suppress
from typing import Any

import torch

from data_shards.stream.cursor import Cursor
from kd.checkpoint.background_writer import Written
from kd.checkpoint.on_disk import Checkpoint
from kd.distributed import process_group
from kd.distributed.rank_progress import WRITING
from kd.errors import KdError
from kd.terms import layer_map
from kd.training.update_report import UpdateReport
from launcher.config.load import public_values
from launcher.config.run_config import AnyRunConfig
from launcher.errors import SharedError
from launcher.process.signals import Exit, StopFlag
from launcher.reporting.event_counts import EventCounts
from launcher.reporting.layer_similarity import render
from launcher.reporting.meter import Meter
from launcher.reporting.reporters import LOG, Reporters
from launcher.run_folder.folder import RunFolder, tell_progress
from launcher.run_folder.metrics_file import lost_lines, read
from launcher.training.batches import BatchLoader
from launcher.training.checkpoints import CheckpointSaver
from launcher.training.diagnostics.train_lines import TrainLines
from launcher.training.evaluations import Evaluations
from launcher.training.parts import Finished, RunParts
from launcher.training.rank_consistency import teachers
from launcher.training.recovery import Recovery
from stillhouse.files import sync_path, write_atomically


class Run:
    """One run on one rank, between its first and its last update."""

    def __init__(self, config: AnyRunConfig, folder: RunFolder, parts: RunParts, reporters: Reporters | None, stop: StopFlag) -> None:
        self.config = config
        self.folder = folder
        self.parts = parts
        self.trainer = parts.trainer
        self.progress = parts.trainer.progress
        self.reporters, self.stop = reporters, stop
        self.train_lines = TrainLines(parts.trainer, parts.updates, self.event)
        self.run_id = folder.wandb_id if process_group.rank() == 0 else None
        self.evaluations = Evaluations(parts.score, parts.evaluate_every, config.evaluate, config.checkpoint.keep_best)
        self.saving = CheckpointSaver(folder.checkpoints, config.checkpoint)
        self.recovery = Recovery(config, folder, parts.trainer, self.event)
        self.started, self.elapsed_before = time.monotonic(), 0.0
        self.teachers = teachers(config)
        self.loader: BatchLoader
        self.first_update = 1  # of this start

    def begin(self, saved: Checkpoint | None, dropped: int) -> None:
        """Continue from the checkpoint, if any, and report it. dropped: number of lines of metrics.jsonl that were after it."""
        windows, facts = 0, saved.progress.facts if saved is not None else {}
        if saved is not None:
            self.parts.stream.check(cursor := Cursor.from_dict(facts["cursor"]))
            windows = cursor.windows
            self.train_lines.meter = Meter.from_dict(facts["meter"])
            self.evaluations.restore(facts)
            self.elapsed_before = facts["elapsed_seconds"]
            self.saving.saved = self.trainer.done
            if "recovery" in facts:
                self.recovery.restore(facts["recovery"])
        rank, world = process_group.rank(), process_group.world_size()
        at = {"rank": rank, "world": world, "update": self.trainer.done, "windows": windows}
        self.loader = BatchLoader(self.parts.stream, self.config.train, **at, to_batch=self.parts.to_batch)
        self.stop.done, self.stop.saved, self.stop.log = self.trainer.done, max(0, self.saving.saved), self.folder.folder / LOG
        self.first_update = self.trainer.done + 1
        if self.reporters is not None:
            self.train_lines.counts = EventCounts(read(self.folder.metrics) if self.folder.metrics.exists() else ())
            reason = f" ({self.parts.precision_reason})" if self.config.train.precision == "auto" else ""
            where = f"{self.parts.precision}{reason}, {world} rank{'s' if world > 1 else ''}"
            if saved is None:
                self.event("started", f"{self.parts.updates} updates, {where}")
                for note in (*self.parts.notes, *self.evaluations.notes):
                    self.event("note", note)
                if self.parts.layer_maps:
                    self.event("layer_map", f"cka: {layer_map.describe(self.parts.layer_maps)}")
                    write_atomically(self.folder.layer_maps, render(self.parts.similarities))
            else:
                again = f"; {dropped} later lines are dropped and written again" if dropped else ""
                again += lost_lines(self.folder.folder, self.trainer.done, facts["config"]["report"]["every_updates"])
                self.event("resumed", f"going on after update {self.trainer.done} of {self.parts.updates}, {where}{again}")
            for way in self.parts.ways:
                self.event("note", way)

    def go(self) -> Exit:
        """Run updates until the last one, a request to stop, or unrecoverable trouble."""
        if self.reporters is not None:
            self.reporters.moved(self.trainer.done, self.parts.updates, None, first=False)  # a bar before the first update
        while self.trainer.done < self.parts.updates:
            self.progress.begin(self.trainer.done + 1, "data")
            batches = self.loader.next_update()
            report = self.trainer.update(batches, look=(self.trainer.done + 1) % self.config.report.every_updates == 0)
            self.announce()
            self.train_lines.add(report, batches)
            self.stop.done = report.update
            if self.reporters is not None:
                self.reporters.moved(report.update, self.parts.updates, report.loss, first=report.update == self.first_update)
            if self.recovery.is_unrecoverable(report, self._windows(), self.wait_for_checkpoint):
                return Exit.NOT_FINITE
            last = report.update == self.parts.updates
            self.progress.enter("reporting")
            border = report.update == self.trainer.phase.end  # no line is about two phases
            if report.update % self.config.report.every_updates == 0 or border or last:
                self.report_line(report)
            if self.evaluations.is_due(report.update) or last:
                self.evaluate(last)
            last = last or self._ends_early(report.update)
            self.progress.enter("agreeing")
            asked, minutes = self._agree()
            every = self.config.checkpoint.every_updates
            due = minutes or self.recovery.rolled_back or (every is not None and report.update % every == 0)
            if last or asked or due or self.evaluations.is_best:
                saved = self.save(wait=last or asked)
                if asked and not last:
                    if not saved:
                        return Exit.FAILED
                    self.event("stopped", f"saved after update {report.update}; start again to continue", reason="requested")
                    return Exit.SAVED_AFTER_SIGNAL
                if last and not saved:
                    return Exit.FAILED
                if last:
                    break
        failed = ""
        try:
            self.finish()
        except (OSError, KdError) as error:  # rank 0 alone writes
            failed = str(error)
        self.progress.enter("agreeing")
        failed = process_group.from_rank_zero(failed)
        if failed:
            self.event("export_failed", f"student not written ({failed}); the last checkpoint is whole: start again to export it")
            return Exit.FAILED
        return Exit.DONE

    def announce(self) -> None:
        """Report that a phase began with this update."""
        phases, phase = self.trainer.phases, self.trainer.phase
        if phase.name and self.trainer.done == phase.first + 1:
            number = f"{phases.index(phase) + 1} of {len(phases)}"
            self.event("phase", f"phase {number}, {phase.name}: updates {phase.first + 1:,} to {phase.end:,}")

    def report_line(self, report: UpdateReport) -> None:
        """Write the train line: means since the last one, and the similarity of layers when it is due."""
        similarity = self._similarity(report.update)
        values = self.train_lines.values(report, self.loader, self._elapsed())
        self.line("train", values | similarity | self.recovery.counts())
        self.train_lines.judge(values["tokens_per_second"])

    def _similarity(self, update: int) -> dict[str, float]:
        """The similarity of layers when it is due, and the seconds that it took. Collective."""
        every = getattr(self.config.evaluate, "layer_similarity_every", None)
        if self.parts.similarity is None or every is None or update % every:
            return {}
        self.progress.enter("evaluation")
        started = time.perf_counter()
        values, table = self.parts.similarity(self.trainer.snapshot(self._evaluated_in), self.progress.touch)
        if table is not None:
            write_atomically(self.folder.layer_similarity, f"update {update}\n{render({0: table})}")
        self.train_lines.meter.pause(seconds := time.perf_counter() - started)
        self.progress.enter("reporting")
        return values | {"cka_seconds": round(seconds, 3)}

    @property
    def _evaluated_in(self) -> torch.dtype:
        """The dtype of the student in evaluations during the run."""
        return torch.bfloat16 if self.parts.precision == "bf16" else torch.float32

    def evaluate(self, everything: bool) -> None:
        """Held-out scores of the student as it is; of all the held-out data at the end, of the configured part in between."""
        if self.evaluations.score is None:
            return
        self.progress.enter("evaluation")
        started = time.perf_counter()
        student = self.trainer.snapshot(torch.float32 if everything else self._evaluated_in)
        scores = self.evaluations.evaluate(student, everything, self.progress.touch)
        self.line("heldout", scores.line | {"tokens": self.trainer.tokens, "elapsed_seconds": round(self._elapsed(), 3)})
        samples = self.parts.samples(student) if self.parts.samples is not None else []
        if samples and self.reporters is not None:
            self.reporters.samples(self.trainer.done, [sample.line(self.trainer.done) for sample in samples])
        self.train_lines.meter.pause(time.perf_counter() - started)

    def _ends_early(self, update: int) -> bool:
        """True if the run ends before its last update, because the held-out scores no longer improve."""
        if update == self.parts.updates or not self.evaluations.is_stale:
            return False
        self.event("ended_early", f"no better held-out score in {self.evaluations.stale} evaluations (evaluate.patience)")
        return True

    def save(self, wait: bool) -> bool:
        """Write a checkpoint, or begin to. False if it could not be written; that is reported, and the last good one is kept."""
        started = time.perf_counter()
        self.wait_for_checkpoint()
        self.progress.enter("saving")
        if process_group.rank() == 0:
            with suppress(OSError):  # a power cut must not keep the checkpoint and lose the lines before it
                sync_path(self.folder.metrics)
        self.report_checkpoints(self.saving.begin(self.trainer, self._facts(), wait))
        self.evaluations.saved(ended=self.trainer.done == self.parts.updates)
        self.train_lines.meter.pause(time.perf_counter() - started)
        return self.saving.saved == self.trainer.done

    def wait_for_checkpoint(self) -> None:
        """Wait for the checkpoint that is being written, and report its outcome. Collective."""
        self.progress.enter(WRITING)
        self.report_checkpoints(self.saving.wait())

    def report_checkpoints(self, ended: list[Written]) -> None:
        """Report the outcome of checkpoints."""
        for written in ended:
            if not written.error and process_group.rank() == 0:
                tell_progress(written.update)
                self.stop.saved = written.update
            event, message, numbers = self.saving.sentence(written)
            self.event(event, message, **numbers)

    def finish(self) -> None:
        """Write the student as a Hugging Face folder, and report.json."""
        self.progress.enter("exporting")
        student = self.trainer.snapshot()
        taken = self.evaluations.take_best(student, self.folder.checkpoints, self.trainer.done)
        scores = self.evaluations.scores
        if scores is None and self.parts.score is not None:  # other weights, or continued after the last checkpoint
            scores = self.evaluations.evaluate(student, True, self.progress.touch)
        self.progress.enter(WRITING)
        if process_group.rank() != 0:
            return
        facts = {"updates": self.trainer.done, "skipped_updates": self.trainer.skipped, "tokens": self.trainer.tokens}
        facts |= {"best_update": taken} if taken != self.trainer.done else {}
        config, precision, phases = self.config, self.parts.precision, self.trainer.phases
        for remark in self.parts.write(Finished(config, self.folder, student, scores, facts, self._elapsed(), precision, phases)):
            self.event("note", remark)
        if self.reporters is not None:
            self.reporters.student(self.folder.student, {"name": config.name, **facts, **(scores.line if scores is not None else {})})
        which = f", of update {taken}, the best evaluation" if taken != self.trainer.done else ""
        self.event("finished", f"{'student' if config.members else 'model'} in {self.folder.student}{which}")

    def line(self, kind: str, values: dict[str, Any]) -> None:
        """Report one line, from rank 0."""
        if self.reporters is not None:
            values = {"kind": kind, "update": self.trainer.done, **values, "time": round(time.time(), 3)}
            self.train_lines.counts.count(values)
            self.reporters.line(values)

    def event(self, event: str, message: str, **more: Any) -> None:
        """Report an event, from rank 0."""
        self.line("event", {"event": event, "message": message, **more})

    def _windows(self) -> list[int]:
        """The windows of the last update, over all ranks."""
        windows: list[int] = self.parts.stream.slots(self.loader.windows - self.config.train.global_batch)[0].tolist()
        return windows

    def _facts(self) -> dict[str, Any]:
        return {
            "cursor": self.parts.stream.cursor(self.loader.windows).as_dict(),
            "meter": self.train_lines.meter.as_dict(),
            **self.evaluations.as_dict(),
            "elapsed_seconds": self._elapsed(),
            **self.parts.facts,
            "recovery": self.recovery.as_dict(),
            "run_id": self.run_id,
            "config": public_values(self.config),
            "teachers": self.teachers,
        }

    def _elapsed(self) -> float:
        return self.elapsed_before + time.monotonic() - self.started

    def _agree(self) -> tuple[bool, bool]:
        """(someone was asked to stop, the clock says save): the same on every rank. Also: a checkpoint has ended, a shard is missing.

        Raises where another run has the folder now.
        """
        missing = self.loader.missing.keys() - self.recovery.skipped_shards.keys()
        due = process_group.rank() == 0 and self.saving.is_due
        other = self.folder.ownership.taken_over if self.folder.ownership is not None else None
        flags = [self.stop.requested is not None, due, self.saving.poll(), bool(missing), other is not None]
        asked, save, finished, skipped, lost = process_group.numbers_over_ranks(flags)
        if lost:
            who = process_group.from_rank_zero(other or "")
            raise SharedError(f"run.folder: expected {self.folder.folder} to stay this run's, got another run in it ({who}); this one ends")
        if finished:
            self.report_checkpoints(self.saving.finished())
        if skipped:
            self.recovery.pass_over({name: self.loader.missing[name] for name in sorted(missing)})
        return asked > 0, save > 0
