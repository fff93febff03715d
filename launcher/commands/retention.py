"""Arguments of `stillhouse retention`."""

from launcher.commands.common import RAW, Verbs, add_config, at_least

RETENTION = """Fine-tune a teacher on each task, train students, and write a report of what they retain. Started again, it goes on.
More: docs/retention.md.
"""
RETENTION_EXAMPLE = """examples:
  stillhouse retention --config glue-small data_folder=glue teacher.model=bert-base-uncased --dry-run
  stillhouse retention --config mine.yaml seeds=[1] --folder runs/retention/mine
"""


def add_retention(verbs: Verbs) -> None:
    """`stillhouse retention`."""
    retention = verbs.add_parser(
        "retention",
        help="teachers and students on tasks, and what is retained",
        description=RETENTION,
        epilog=RETENTION_EXAMPLE,
        formatter_class=RAW,
    )
    add_config(retention)
    retention.add_argument("--folder", default=None, help="where everything goes (runs/retention/ and the file's name)")
    retention.add_argument("--ranks", type=at_least(1), default=1, metavar="N", help="processes of each run (1)")
    retention.add_argument("--jobs", type=at_least(1), default=1, metavar="N", help="runs side by side (1)")
    retention.add_argument("--dry-run", action="store_true", help="print the runs with rows and updates, and stop")
