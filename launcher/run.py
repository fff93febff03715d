"""`deepspeed launcher/run.py --config configs/X.yaml key=value …`: one run, on this rank, whoever started it.

Works alike under deepspeed, torchrun, srun (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT in the environment) and alone.
"""

import argparse
import os
import sys
from contextlib import nullcontext, suppress
from pathlib import Path

if __package__ in (None, ""):  # started as a script: its folder is on the path, the project's is not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # torch's warnings are C++ stacks; what a lost rank means is said in one line

from launcher.process import early_signals


def run(arguments: argparse.Namespace) -> int:
    """The run that the arguments describe; its exit code."""
    # Imported here and not above: --help needs none of it, and mistakes are found before torch is imported, which takes seconds.
    from launcher.process import preflight  # noqa: PLC0415

    preflight.check_packages()
    from launcher.config.load import dump_config, load_run  # noqa: PLC0415
    from launcher.errors import LaunchError  # noqa: PLC0415
    from launcher.planning.light_checks import check_inputs  # noqa: PLC0415
    from launcher.process.rank_environment import rank_and_world  # noqa: PLC0415
    from launcher.process.signals import Exit  # noqa: PLC0415
    from launcher.process.standard_streams import say  # noqa: PLC0415

    if arguments.estimate and not arguments.dry_run:
        raise LaunchError("--estimate: expected --dry-run with it, got none; add --dry-run")
    rank, world = rank_and_world()
    note = (lambda text: say(f"stillhouse: {text}", sys.stderr)) if rank == 0 else None
    config = load_run(arguments.config, arguments.settings, arguments.scale, note)
    corpus = check_inputs(config, world)
    from launcher.process.steps import step  # noqa: PLC0415

    with nullcontext() if arguments.dry_run else step("loading torch and planning the run"):
        from launcher.planning.checks import check_disk  # noqa: PLC0415
        from launcher.planning.table import show_rows  # noqa: PLC0415
        from launcher.prepare import prepare  # noqa: PLC0415

        prepared = prepare(config, world, corpus, measured=arguments.estimate)
        plan = prepared.plan
    if arguments.dry_run:
        if rank == 0:
            check_disk(Path(config.run.folder), plan.disk_needed, plan.disk_free)
            show_rows(prepared.rows)
        if arguments.estimate:
            _prepare_meeting(rank, world)
            from launcher.benchmarks.updates import estimate  # noqa: PLC0415

            expected = estimate(config, prepared.data)
            if rank == 0:
                print(f"{expected.text}\n")
        if rank == 0:
            print(dump_config(config))
        return int(Exit.DONE)
    _prepare_meeting(rank, world)
    from launcher.training import session  # noqa: PLC0415

    return session.main(config, plan, prepared.data, arguments.resume)


def _prepare_meeting(rank: int, world: int) -> None:
    """Check the addresses at which the ranks meet, and choose the network interface."""
    from launcher.process import network, preflight  # noqa: PLC0415

    preflight.check_meeting(rank, world)
    network.choose_interface()


def main() -> None:
    """The script's own door."""
    early_signals.catch()  # before the other imports, in which Ctrl-C would be a traceback
    from launcher.commands.common import Parser  # noqa: PLC0415
    from launcher.commands.train import TRAIN_EXAMPLE, add_train_arguments  # noqa: PLC0415
    from launcher.process.error_exit import guarded  # noqa: PLC0415

    parser = Parser(prog="launcher/run.py", description=__doc__, epilog=TRAIN_EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_train_arguments(parser)
    sys.exit(guarded(run, parser.parse_args()))


if __name__ == "__main__":
    try:
        main()
    except SystemExit as end:
        with suppress(OSError):  # nobody reads any more, or a full disk: what has been done is done
            sys.stdout.flush()
            sys.stderr.flush()
        # not sys.exit: the interpreter's own end may abort after a run that ended well (kd.distributed.process_group.leave)
        os._exit(int(end.code or 0))
