"""Arguments of `stillhouse doctor` and `stillhouse wandb-replay`."""

import argparse

from launcher.commands.common import RAW, Verbs

DOCTOR = """Check what a run needs of this machine, or the state of a run. Each line says what was found and what to do. The exit
code is 1 if a run would fail. More: docs/doctor.md.
"""
REPLAY = "Send the lines of a run's metrics.jsonl to W&B, as one run under the run's own id. More: docs/metrics.md."
DOCTOR_EXAMPLE = """examples:
  stillhouse doctor --folder runs --shards shards/mine   this machine: software, ranks, disks, network
  srun --ntasks=2 stillhouse doctor                      the same on compute nodes
  stillhouse doctor runs/laptop                          a run: its health, why it stopped, what to do
"""
REPLAY_EXAMPLE = """example:
  stillhouse wandb-replay runs/laptop --project my-project
"""


def add_doctor(verbs: Verbs) -> None:
    """`stillhouse doctor`."""
    doctor = verbs.add_parser(
        "doctor", help="check this machine, or the state of a run", description=DOCTOR, epilog=DOCTOR_EXAMPLE, formatter_class=RAW
    )
    doctor.add_argument("run", nargs="?", default=None, metavar="RUN", help="a run folder; without it: this machine")
    doctor.add_argument("--folder", default="runs", metavar="FOLDER", help="where runs will be kept: its disk is tried (runs)")
    doctor.add_argument("--shards", default=None, metavar="FOLDER", help="shards that will be read")
    doctor.add_argument("--clear-locks", action="store_true", help=argparse.SUPPRESS)
    doctor.add_argument("--json", action="store_true", help="answer as JSON")


def add_wandb_replay(verbs: Verbs) -> None:
    """`stillhouse wandb-replay`."""
    replay = verbs.add_parser(
        "wandb-replay",
        help="send a run's metrics.jsonl to W&B as one run",
        description=REPLAY,
        epilog=REPLAY_EXAMPLE,
        formatter_class=RAW,
    )
    replay.add_argument("folder", metavar="RUN", help="a run folder")
    replay.add_argument("--mode", default="online", choices=("online", "offline"), help="where to (online)")
    replay.add_argument("--project", default="stillhouse", help="W&B project")
    replay.add_argument("--entity", default=None, help="W&B user or team")
