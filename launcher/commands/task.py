"""Arguments of `stillhouse task`."""

import argparse

from launcher.commands.common import RAW, Verbs, add_config
from launcher.commands.train import add_train_arguments

TASK_EXAMPLE = """examples:
  stillhouse task data --config tasks/sst2 data.folder=glue/SST-2
  stillhouse task train --config tasks/sst2 data.folder=glue/SST-2 student.init=bert-base-uncased run.folder=runs/sst2-teacher
  stillhouse task train --config tasks/sst2 data.folder=glue/SST-2 teacher.model=runs/sst2-teacher/student student.init=teacher
  stillhouse task score runs/sst2/student runs/sst2-teacher/student --config tasks/sst2 --set data.folder=glue/SST-2
"""


def add_task(verbs: Verbs) -> None:
    """`stillhouse task`."""
    task = verbs.add_parser("task", help="fine-tune, distil and score on a task", epilog=TASK_EXAMPLE, formatter_class=RAW)
    actions = task.add_subparsers(dest="task_verb", metavar="VERB", required=True)
    train = actions.add_parser(
        "train", help="train on a task: with teacher: it distils, without it fine-tunes", epilog=TASK_EXAMPLE, formatter_class=RAW
    )
    add_train_arguments(train)
    score = actions.add_parser("score", help="scores of models with their intervals", epilog=TASK_EXAMPLE, formatter_class=RAW)
    score.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="model folders, exported folders or hub names, with a head for the task; key=value words are settings",
    )
    add_task_config(score)
    score.add_argument("--split", default="dev", choices=("dev", "test"), help="the rows to score on (dev)")
    score.add_argument(
        "--label-map",
        action="append",
        type=_pair,
        metavar="DATA=MODEL",
        help="names of a label in the data and in the model",
    )
    score.add_argument("--predictions", default=None, metavar="FOLDER", help="also write a line for each example there")
    score.add_argument("--json", default=None, metavar="FILE", help="also write the scores there")
    data = actions.add_parser("data", help="rows, labels, lengths, duplicates and overlap", epilog=TASK_EXAMPLE, formatter_class=RAW)
    add_config(data)


def add_task_config(parser: argparse.ArgumentParser) -> None:
    """A configuration, and settings, for a verb whose words are models."""
    parser.add_argument("--config", required=True, metavar="YAML", help="a configuration file, or the name of one in configs/tasks/")
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="a setting to use instead of the file's"
    )


def _pair(text: str) -> tuple[str, str]:
    name, equals, other = text.partition("=")
    if not equals or not name or not other:
        raise argparse.ArgumentTypeError(f"expected DATA=MODEL, got {text}")
    return name, other
