"""A run's lifetime on one rank: meet the others, agree that all run the same, own the folder, build the parts, train, part.

What ends a run in here, on this rank or another, is one line a rank (launcher/watch.py).
"""

from kd import distributed
from kd.whereabouts import BUILDING, Whereabouts
from launcher import config as configuration
from launcher import wiring
from launcher.agreement import agree, check_teachers
from launcher.config import RunConfig
from launcher.errors import Agreed
from launcher.opening import agreed, meet, newest_checkpoint, open_folder
from launcher.reporters import Reporters, trim
from launcher.signals import Exit, StopFlag
from launcher.streams import say
from launcher.train import Run
from launcher.watch import say_aloud, watching


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
                say(f"already done: student in {folder.student}, scores in {folder.report}")
            return int(Exit.DONE)
        saved = newest_checkpoint(folder)
        if resume and saved is None:
            raise Agreed(f"{folder.checkpoints}: expected a checkpoint to resume from, got none; start without --resume")
        if saved is not None:
            begun = configuration.of_values(saved.progress.facts["config"], str(saved.folder))  # config.yaml may be lost, or edited
            agreed(lambda: folder.expect(begun, config))
            check_teachers(config, saved)
        here.enter(BUILDING)
        parts = wiring.build(config, saved, here)
        agreed(lambda: folder.record(config))
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
            run.saving.close()
            if reporters is not None:
                reporters.close(int(code))
        here.enter("parting")
        distributed.barrier()
        return int(code)
