"""Arguments of `stillhouse doctor`, `stillhouse plan` and `stillhouse wandb-replay`."""

import argparse

from launcher.commands.common import RAW, Verbs, above_zero, at_least

DOCTOR = """Check what a run needs of this machine, or the state of a run. Each line says what was found and what to do. The exit
code is 1 if a run would fail. More: docs/doctor.md.
"""
REPLAY = "Send the lines of a run's metrics.jsonl to W&B, as one run under the run's own id. More: docs/metrics.md."
DOCTOR_EXAMPLE = """examples:
  stillhouse doctor --folder runs --shards shards/mine   this machine: software, ranks, disks, network
  srun --ntasks=2 stillhouse doctor                      the same on compute nodes
  stillhouse doctor runs/laptop                          a run: its health, why it stopped, what to do
"""
PLAN = """Plan a run on a cluster before anything is allocated: memory of a rank by part, time of an update by part, days, cost, energy,
disk, from 1 to 1,024 devices, and the cheapest teacher mode. No weight is read. More: docs/planning.md.
"""
PLAN_EXAMPLE = """examples:
  stillhouse plan distilbert --nodes 1 --gpus 8 --gpu v100 --tokens 1e10
  stillhouse plan laptop data.shards=shards/mine --nodes 2 --gpus 2 --gpu h100 --price 2.5 --plot plan.png
  stillhouse plan --calibrate --out this-machine.yaml      measures this machine in about a minute
  stillhouse plan laptop --gpu this-machine.yaml --json
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


def add_plan(verbs: Verbs) -> None:
    """`stillhouse plan`."""
    plan = verbs.add_parser(
        "plan", help="memory, time and cost of a run on a cluster", description=PLAN, epilog=PLAN_EXAMPLE, formatter_class=RAW
    )
    plan.add_argument("config", nargs="?", default=None, metavar="CONFIG", help="a configuration file, or the name of one in configs/")
    plan.add_argument("settings", nargs="*", metavar="key=value", help="settings to use instead of the file's")
    plan.add_argument("--nodes", type=at_least(1), default=1, metavar="N", help="hosts (1)")
    plan.add_argument("--gpus", type=at_least(1), default=1, metavar="M", help="devices, and ranks, of each host (1)")
    plan.add_argument("--gpu", default="cpu", metavar="NAME", help="h100, a100, v100, l4, cpu, or a YAML file of a device (cpu)")
    plan.add_argument("--tokens", type=above_zero, default=None, metavar="N", help="positions to train on, instead of the file's length")
    plan.add_argument("--price", type=above_zero, default=None, metavar="P", help="price of one device for an hour")
    plan.add_argument("--plot", default=None, metavar="FILE", help="also draw the run on 1 to 1,024 devices, as .png or .svg")
    plan.add_argument("--json", action="store_true", help="answer as JSON")
    plan.add_argument("--calibrate", action="store_true", help="measure this machine and write a file for --gpu")
    plan.add_argument("--out", default="device.yaml", metavar="FILE", help="with --calibrate: the file to write (device.yaml)")


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
