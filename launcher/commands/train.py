"""Arguments of `stillhouse train`, `stillhouse student` and `stillhouse config`."""

import argparse

from launcher.commands.common import RAW, Verbs, add_config, at_least, sentence

TRAIN_EXAMPLE = """examples:
  deepspeed launcher/run.py --config configs/distilbert.yaml data.shards=/data/wiki train.micro_batch=16
  stillhouse train --config demo --dry-run
  stillhouse train --config demo --dry-run --estimate
"""
TRAIN = """Train a student, or continue a run that was stopped: the same command does both. Everything about the run is in
run.folder. Ctrl-C saves a checkpoint. Settings: docs/configuration.md.
"""
STUDENT = """Write the student of a checkpoint as a Hugging Face folder: of the newest checkpoint, or after --update N. The run may go on
meanwhile. A finished run has its last student in RUN/student.
"""
STUDENT_EXAMPLE = """examples:
  stillhouse student runs/demo --out students/now
  stillhouse student runs/demo --update 500 --out students/update-500
"""
CONFIG = "Show the packaged configurations, or the JSON schema of the YAML."
CONFIG_EXAMPLE = """examples:
  stillhouse config list
  stillhouse config show laptop
  stillhouse config schema                            for editors: completion and checks of the YAML
"""


def add_train(verbs: Verbs) -> None:
    """`stillhouse train`."""
    train = verbs.add_parser("train", help="start or continue a run", description=TRAIN, epilog=TRAIN_EXAMPLE, formatter_class=RAW)
    add_train_arguments(train)


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of a run."""
    add_config(parser)
    parser.add_argument(
        "--scale", default=None, metavar="NAME", help="a smaller version of the run: demo, on the files of `stillhouse demo`"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and the resolved configuration, and stop")
    parser.add_argument("--estimate", action="store_true", help="with --dry-run: run a few updates, discard them, print speed and time")
    parser.add_argument("--resume", action="store_true", help="fail unless there is a checkpoint to continue from")
    parser.add_argument("--local_rank", type=int, default=None, help=argparse.SUPPRESS)  # deepspeed's launcher passes it


def add_student(verbs: Verbs) -> None:
    """`stillhouse student`."""
    student = verbs.add_parser(
        "student", help="the student of a run's checkpoint, as a folder", description=STUDENT, epilog=STUDENT_EXAMPLE, formatter_class=RAW
    )
    student.add_argument("run", metavar="RUN", help="a run folder")
    student.add_argument("--update", type=at_least(1), default=None, metavar="N", help="of the checkpoint after this update (the newest)")
    student.add_argument("--out", required=True, metavar="FOLDER", help="a folder that is new or empty")


def add_show_config(verbs: Verbs) -> None:
    """`stillhouse config`."""
    config = verbs.add_parser(
        "config", help="packaged configurations, schema of the YAML", description=CONFIG, epilog=CONFIG_EXAMPLE, formatter_class=RAW
    )
    actions = config.add_subparsers(dest="config_verb", metavar="VERB", required=True)
    for verb, example, text in (
        ("list", "list", "each packaged configuration, with its purpose"),
        ("show", "show laptop", "print one, comments included"),
        ("schema", "schema", "the JSON schema of a run's YAML"),
    ):
        shown = f"example:\n  stillhouse config {example}\n"
        action = actions.add_parser(verb, help=text, description=sentence(text), epilog=shown, formatter_class=RAW)
        if verb == "show":
            action.add_argument("name", metavar="NAME", help="a name that `stillhouse config list` prints")
        if verb == "schema":
            action.add_argument("--task", action="store_true", help="the schema of a run on a task")
