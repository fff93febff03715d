"""Arguments of `stillhouse retention` and `stillhouse classify`."""

from launcher.commands.common import RAW, Verbs, above_zero, add_config, at_least, share

RETENTION = """Fine-tune a teacher on each task, train students, and write a report of what they retain. Started again, it goes on.
More: docs/retention.md.
"""
RETENTION_EXAMPLE = """examples:
  stillhouse retention --config glue-small data_folder=glue teacher.model=bert-base-uncased --dry-run
  stillhouse retention --config mine.yaml seeds=[1] --folder runs/retention/mine
"""
CLASSIFY = """Train a classifier on a csv, tsv, jsonl or parquet file: split it, fine-tune a teacher, distil a student, write the report,
export the student to ONNX, and print the line that uses it. Labels may be classes, numbers, or several in a field. Started again, it goes
on. More: docs/retention.md.
"""
CLASSIFY_EXAMPLE = """examples:
  stillhouse classify reviews.csv --text review --label stars --out runs/mine --dry-run
  stillhouse classify reviews.csv --text review --label stars --teacher roberta-base --out runs/mine
  stillhouse classify pairs.csv --text first --text-pair second --label same --student runs/demo/student --out runs/pairs
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


def add_classify(verbs: Verbs) -> None:
    """`stillhouse classify`."""
    classify = verbs.add_parser(
        "classify",
        help="a small classifier of your own file, in one command",
        description=CLASSIFY,
        epilog=CLASSIFY_EXAMPLE,
        formatter_class=RAW,
    )
    classify.add_argument("file", metavar="FILE", help="csv, tsv, jsonl or parquet, with a line for each example")
    classify.add_argument("--text", required=True, metavar="COLUMN", help="the column with the text")
    classify.add_argument("--text-pair", default=None, metavar="COLUMN", help="the column with a second text")
    classify.add_argument("--label", required=True, metavar="COLUMN", help="the column with the label")
    classify.add_argument(
        "--kind",
        default=None,
        choices=("classification", "multi_label", "regression"),
        help="of the labels: a class, several, or a number (guessed from the column, and said)",
    )
    classify.add_argument("--out", required=True, metavar="FOLDER", help="where everything goes")
    classify.add_argument("--teacher", default="bert-base-uncased", metavar="MODEL", help="the pretrained encoder (bert-base-uncased)")
    classify.add_argument(
        "--student",
        default="teacher-layers",
        metavar="FOLDER",
        help="a pretrained student, or teacher-layers: every other layer of the teacher (teacher-layers)",
    )
    classify.add_argument("--dev-fraction", type=share, default=0.1, metavar="SHARE", help="rows that become the development set (0.1)")
    classify.add_argument("--epochs", type=above_zero, default=3.0, metavar="N", help="of teacher and student (3)")
    classify.add_argument("--learning-rate", type=above_zero, default=5e-5, metavar="X", help="of teacher and student (5e-5)")
    classify.add_argument("--max-length", type=at_least(8), default=128, metavar="N", help="tokens after which a text is cut (128)")
    classify.add_argument("--batch", type=at_least(1), default=32, metavar="N", help="rows of an update (32)")
    classify.add_argument("--seed", type=at_least(0), default=1, metavar="N", help="of the split, initialisation and row order (1)")
    classify.add_argument("--ranks", type=at_least(1), default=1, metavar="N", help="processes of each run (1)")
    classify.add_argument("--dry-run", action="store_true", help="print the configurations and commands that it runs, and stop")
