"""A run's lifetime on one rank: meet the others, agree that all run the same, own the folder, build the parts, train, part.

What ends a run in here, on this rank or another, is one line a rank (launcher/training/rank_watch.py).
"""

from pathlib import Path
from typing import Protocol

from kd.distributed import process_group
from kd.distributed.rank_progress import BUILDING, RankProgress
from launcher.config.load import config_of, public_values
from launcher.config.run_config import AnyRunConfig
from launcher.errors import SharedError
from launcher.planning.checks import check_disk
from launcher.planning.cost.fit import MemoryNeed
from launcher.process.preflight import check_writable
from launcher.process.rank_zero import on_rank_zero
from launcher.process.signals import Exit, StopFlag
from launcher.process.standard_streams import say
from launcher.process.steps import step
from launcher.reporting.reporters import Reporters
from launcher.run_folder.metrics_file import trim
from launcher.run_page.write import write_at_end
from launcher.training.diagnostics.utilisation import described, measured_gemm_rate
from launcher.training.loop import Run
from launcher.training.parts import TrainingData
from launcher.training.rank_consistency import agree, check_teachers
from launcher.training.rank_watch import say_aloud, watching
from launcher.training.start import check_memory, meet, newest_checkpoint, open_folder


class DiskNeed(Protocol):
    """The part of a plan that a run checks before it writes."""

    @property
    def disk_needed(self) -> int:
        """Bytes."""

    @property
    def disk_free(self) -> int:
        """Bytes."""

    @property
    def memory_need(self) -> MemoryNeed | None:
        """The planned memory of a rank; None where it is not planned."""


def main(config: AnyRunConfig, plan: DiskNeed, data: TrainingData, resume: bool = False) -> int:
    """Run or continue a configuration on this rank; the exit code (see launcher.process.signals.Exit).

    A run folder that already holds this configuration is continued; resume insists that there is something to continue.
    """
    stop = StopFlag.install()
    stop.answer(speaks=process_group.rank() == 0)
    progress = RankProgress()
    with stop.ending_at_once():
        meet(config.train.timeout_seconds)
    try:
        with watching(progress, config.train.timeout_seconds, say_aloud):
            agree(config, data.contents)
            on_rank_zero(lambda: _check_folder(config, plan))  # after the meeting: an error reaches every rank
            if plan.memory_need is not None and config.train.check_memory:
                check_memory(plan.memory_need)
            return _run(config, plan, data, resume, stop, progress)
    finally:
        process_group.stop()


def _check_folder(config: AnyRunConfig, plan: DiskNeed) -> None:
    """LaunchError unless the run folder can be written and its disk has room. For rank 0, which writes."""
    check_writable(Path(config.run.folder))
    check_disk(Path(config.run.folder), plan.disk_needed, plan.disk_free)


def _run(config: AnyRunConfig, plan: DiskNeed, data: TrainingData, resume: bool, stop: StopFlag, progress: RankProgress) -> int:
    """The work of `main` while the process group exists."""
    with open_folder(config) as folder:
        if folder.report.exists() and folder.student.exists():
            if process_group.rank() == 0:
                say(f"already done: student in {folder.student}, scores in {folder.report}")
            return int(Exit.DONE)
        with step("looking for a checkpoint"):
            saved = newest_checkpoint(folder)
        if resume and saved is None:
            raise SharedError(f"{folder.checkpoints}: expected a checkpoint to resume from, got none; start without --resume")
        if saved is not None:
            begun = config_of(saved.progress.facts["config"], str(saved.folder))  # config.yaml may be lost, or edited
            on_rank_zero(lambda: folder.expect(begun, config))
            check_teachers(config, saved)
        progress.enter(BUILDING)
        with step("loading the teacher and building the student" if config.members else "loading the model"):
            parts = data.build(saved, progress)
        gemm_rate = measured_gemm_rate(parts.precision)
        precision = {"asked": config.train.precision, "used": parts.precision, "reason": parts.precision_reason}
        precision |= {"gpu_products": products} if (products := parts.trainer.gpu_products) else {}
        precision |= {"vocabulary_head": way} if (way := parts.head) else {}
        precision |= {"compiled": ", ".join(compiled)} if (compiled := parts.trainer.compiled) else {}
        attention = {"asked": config.train.attention, "reason": parts.attention.reason} | parts.attention.facts
        gemm = described(parts.precision, gemm_rate)
        on_rank_zero(lambda: folder.record(config, data.described, gemm=gemm, precision=precision, attention=attention))
        if config.train.try_largest_batch:
            with step("trying an update on the largest batch, which is undone"):
                parts.trainer.try_update(parts.largest())
        reporters, dropped = None, 0
        if process_group.rank() == 0:
            dropped = trim(folder.metrics, parts.trainer.done)
            values = public_values(config) | folder.origin(config, data.contents)
            reporters = Reporters(config.report, folder.folder, name=config.name, config=values, run_id=folder.wandb_id)
        run = Run(config, folder, parts, reporters, stop)
        run.begin(saved, dropped)
        need = plan.memory_need
        run.train_lines.expect(need.work if need else None, gemm_rate, need.before_the_first_line if need else None)
        stop.updates = parts.updates
        code = Exit.FAILED
        try:
            code = run.go()
        finally:
            run.loader.close()
            run.saving.close()
            if reporters is not None:
                if folder.ownership is None or folder.ownership.taken_over is None:
                    write_at_end(folder.folder, lambda problem: run.event("page_failed", problem))
                reporters.close(int(code))
        progress.enter("parting")
        process_group.barrier()
        return int(code)
