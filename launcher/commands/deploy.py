"""Arguments of the verbs that use a finished model: `stillhouse predict`, `calibrate`, `latency` and `advise`."""

from launcher.commands.common import RAW, Verbs, above_zero, at_least

PREDICT = """Print a JSON line with label and score for each text. Masked-language models fill the mask token. Hugging Face folders
and exported folders give the same output, up to the precision of the export. More: docs/shipping.md.
"""
PREDICT_EXAMPLE = """examples:
  stillhouse predict shipped/sst2 reviews.txt
  stillhouse predict shipped/pairs pairs.tsv --column a --pair-column b
  stillhouse predict shipped/squad questions.jsonl --no-answer
  stillhouse predict runs/laptop/student - --top 3
"""
CALIBRATE = """Choose a temperature on the development set of a task, and thresholds where a text has several labels. Print the
expected calibration error before and after, and store both in the folder. predict --calibrated uses them. More: docs/shipping.md.
"""
CALIBRATE_EXAMPLE = """example:
  stillhouse calibrate shipped/sst2 --task-config tasks/sst2 --set data.folder=glue/SST-2
"""
LATENCY = """Measure the time of a batch in torch fp32 and bf16, and in exported ONNX files, in turns. A target is answered, unless
other processes had the core. More: docs/shipping.md.
"""
LATENCY_EXAMPLE = """example:
  stillhouse latency runs/sst2/student shipped/sst2 --length 16,128 --target-ms 10
"""

ADVISE = """Rank the models of a task by everything that was measured: reports of runs and proofs, exports, and times from
stillhouse latency --json. Say which meets the limits, and when distillation does not pay. More: docs/advise.md.
"""
ADVISE_EXAMPLE = """examples:
  stillhouse advise --task sst2 --latency-ms 10 --size-mb 50
  stillhouse advise --task sst2 --latency-ms 10 --size-mb 50 --calls-per-day 1e6 --data-changes-days 30 runs/retention shipped
"""


def add_predict(verbs: Verbs) -> None:
    """`stillhouse predict`."""
    predict = verbs.add_parser(
        "predict", help="labels and scores of texts as jsonl", description=PREDICT, epilog=PREDICT_EXAMPLE, formatter_class=RAW
    )
    predict.add_argument("model", metavar="MODEL", help="a Hugging Face model folder, or one from stillhouse export")
    predict.add_argument("file", nargs="?", default="-", metavar="FILE", help="lines, csv, tsv or jsonl; - is standard input (-)")
    predict.add_argument("--input-format", default=None, choices=("lines", "csv", "tsv", "jsonl"), help="of FILE (by its ending, or lines)")
    predict.add_argument("--column", default="text", metavar="NAME", help="column of the text, or of the question (text; question)")
    predict.add_argument("--pair-column", default=None, metavar="NAME", help="column of the second text (none; context for questions)")
    predict.add_argument("--max-length", type=at_least(8), default=None, metavar="N", help="tokens after which a text is cut (the model's)")
    predict.add_argument("--window-overlap", type=at_least(0), default=None, metavar="N", help="questions: tokens of two windows (128)")
    predict.add_argument("--max-question", type=at_least(1), default=None, metavar="N", help="tokens after which a question is cut (64)")
    predict.add_argument("--no-answer", action="store_true", help="questions may have no answer: the label is then empty")
    predict.add_argument("--calibrated", action="store_true", help="scores and thresholds as stillhouse calibrate stored them")
    predict.add_argument("--batch", type=at_least(1), default=16, metavar="N", help="rows of like length at a time (16)")
    predict.add_argument("--top", type=at_least(1), default=5, metavar="N", help="words for each mask (5)")


def add_calibrate(verbs: Verbs) -> None:
    """`stillhouse calibrate`."""
    calibrate = verbs.add_parser(
        "calibrate",
        help="a temperature and thresholds for scores",
        description=CALIBRATE,
        epilog=CALIBRATE_EXAMPLE,
        formatter_class=RAW,
    )
    calibrate.add_argument("model", metavar="MODEL", help="a Hugging Face model folder, or one from stillhouse export")
    calibrate.add_argument("--task-config", required=True, metavar="YAML", help="the model's task, with its development set")
    calibrate.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="a setting of the task")


def add_latency(verbs: Verbs) -> None:
    """`stillhouse latency`."""
    latency = verbs.add_parser(
        "latency", help="time of models in torch and ONNX, and a target", description=LATENCY, epilog=LATENCY_EXAMPLE, formatter_class=RAW
    )
    latency.add_argument("models", nargs="+", metavar="MODEL", help="Hugging Face model folders, or folders from stillhouse export")
    latency.add_argument("--batch", type=_numbers, default=[1], metavar="N,N", help="rows of a batch (1)")
    latency.add_argument("--length", type=_numbers, default=[16, 128], metavar="N,N", help="tokens of a row (16,128)")
    latency.add_argument("--threads", type=_numbers, default=[1], metavar="N,N", help="threads of the model (1)")
    latency.add_argument("--repetitions", type=at_least(5), default=50, metavar="N", help="timed batches for each setting (50)")
    latency.add_argument(
        "--target-ms", type=above_zero, default=None, metavar="MS", help="say which models meet this at p95, and which is the best"
    )
    latency.add_argument("--plot", default=None, metavar="FILE", help="also draw the times there, as PNG")
    latency.add_argument("--json", default=None, metavar="FILE", help="also write the figures there")


def add_advise(verbs: Verbs) -> None:
    """`stillhouse advise`."""
    advise = verbs.add_parser(
        "advise", help="the model to ship, of all that were measured", description=ADVISE, epilog=ADVISE_EXAMPLE, formatter_class=RAW
    )
    advise.add_argument("folders", nargs="*", metavar="FOLDER", help="folders or files with reports (runs shipped)")
    advise.add_argument("--task", required=True, metavar="TASK", help="the task, as a report names it: sst2")
    advise.add_argument("--latency-ms", type=above_zero, default=None, metavar="MS", help="the most time of a batch at p95 (no limit)")
    advise.add_argument("--size-mb", type=above_zero, default=None, metavar="MB", help="the most decimal megabytes on disk (no limit)")
    advise.add_argument("--min-retained", type=above_zero, default=0.97, metavar="X", help="the least share of the teacher's metric (0.97)")
    advise.add_argument("--calls-per-day", type=above_zero, default=None, metavar="N", help="to say when training is repaid")
    advise.add_argument("--data-changes-days", type=above_zero, default=None, metavar="N", help="days after which the task changes")
    for name, text in (("batch", "rows of a batch"), ("length", "tokens of a row"), ("threads", "threads")):
        advise.add_argument(f"--{name}", type=at_least(1), default=None, metavar="N", help=f"{text} of the times (as most were measured)")
    advise.add_argument("--all", action="store_true", help="show every model, not only the first 20")
    advise.add_argument("--json", default=None, metavar="FILE", help="also write everything there")


def _numbers(text: str) -> list[int]:
    return [at_least(1)(part) for part in text.split(",")]
