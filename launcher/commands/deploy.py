"""Arguments of the verbs that use a finished model: `stillhouse predict` and `latency`."""

from launcher.commands.common import RAW, Verbs, above_zero, at_least

PREDICT = """Print a JSON line with label and score for each text. Masked-language models fill the mask token. Hugging Face folders
and exported folders give the same output, up to the precision of the export. More: docs/shipping.md.
"""
PREDICT_EXAMPLE = """examples:
  stillhouse predict shipped/sst2 reviews.txt
  stillhouse predict shipped/pairs pairs.tsv --column a --pair-column b
  stillhouse predict runs/laptop/student - --top 3
"""
LATENCY = """Measure the time of a batch in torch fp32 and bf16, and in exported ONNX files, in turns. A target is answered, unless
other processes had the core. More: docs/shipping.md.
"""
LATENCY_EXAMPLE = """example:
  stillhouse latency runs/sst2/student shipped/sst2 --length 16,128 --target-ms 10
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
    predict.add_argument("--batch", type=at_least(1), default=16, metavar="N", help="rows of like length at a time (16)")
    predict.add_argument("--top", type=at_least(1), default=5, metavar="N", help="words for each mask (5)")


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


def _numbers(text: str) -> list[int]:
    return [at_least(1)(part) for part in text.split(",")]
