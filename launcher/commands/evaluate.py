"""Arguments of `stillhouse evaluate`, `stillhouse layers` and `stillhouse bench`."""

from launcher.commands.common import RAW, Verbs, add_cache_folder, add_config, at_least, share

EVALUATE = """Score masked-language models on the held-out documents of shards, side by side, in fp32. With --teacher also by how much
they keep of it and agree with it.
"""
LAYERS = """Compare each student layer with each teacher layer on the corpus (linear CKA), and print the layer map of the most
similar pairs. More: docs/techniques.md.
"""
EVALUATE_EXAMPLE = """example:
  stillhouse evaluate runs/demo/student runs/demo/baseline/student --shards runs/demo/shards --teacher runs/demo/teacher/model
"""
LAYERS_EXAMPLE = """example:
  stillhouse layers --config configs/demo.yaml student.layers=last
"""


BENCH = """Measure the trainer against a plain torch loop on the same batches, update by update: speed, memory, share of a matrix
product's rate, time by part. Without --config: three shapes with random weights, in a few minutes. Nothing of a run is written.
"""
BENCH_EXAMPLE = """examples:
  stillhouse bench --json bench.json --picture bench.png
  stillhouse bench --config laptop data.shards=shards/mine --updates 10
  stillhouse bench --config laptop data.shards=shards/mine --ranks 2
"""


def add_evaluate(verbs: Verbs) -> None:
    """`stillhouse evaluate`."""
    evaluate = verbs.add_parser(
        "evaluate", help="held-out scores of masked-language models", description=EVALUATE, epilog=EVALUATE_EXAMPLE, formatter_class=RAW
    )
    evaluate.add_argument("models", nargs="+", metavar="MODEL", help="model folders or hub names")
    evaluate.add_argument("--shards", required=True, metavar="FOLDER", help="shards whose held-out part is used")
    add_cache_folder(evaluate)
    evaluate.add_argument("--teacher", default=None, metavar="MODEL", help="also: retention, agreement and KL to this one")
    evaluate.add_argument("--window-tokens", type=at_least(4), default=128, metavar="N", help="positions per window (128)")
    evaluate.add_argument(
        "--packing", default="windows", choices=("windows", "documents"), help="several documents in a row (windows), or one piece of one"
    )
    evaluate.add_argument("--windows", type=at_least(1), default=None, metavar="N", help="how many held-out windows (all)")
    evaluate.add_argument("--batch", type=at_least(1), default=32, metavar="N", help="windows at a time (32)")
    evaluate.add_argument("--mask-rate", type=share, default=0.15, metavar="SHARE", help="share of tokens predicted (0.15)")
    evaluate.add_argument("--seed", type=at_least(0), default=1, help="of the masks (1)")
    evaluate.add_argument("--json", default=None, metavar="FILE", help="also write the scores there")


def add_layers(verbs: Verbs) -> None:
    """`stillhouse layers`."""
    layers = verbs.add_parser(
        "layers",
        help="similarity of student and teacher layers, best layer map",
        description=LAYERS,
        epilog=LAYERS_EXAMPLE,
        formatter_class=RAW,
    )
    add_config(layers)
    layers.add_argument("--tokens", type=at_least(2), default=4096, metavar="N", help="tokens of the corpus to compare on (4096)")


def add_bench(verbs: Verbs) -> None:
    """`stillhouse bench`."""
    bench = verbs.add_parser(
        "bench",
        help="speed and memory of the trainer here, against a plain loop",
        description=BENCH,
        epilog=BENCH_EXAMPLE,
        formatter_class=RAW,
    )
    bench.add_argument("--config", default=None, metavar="YAML", help="a run's file or a name in configs/, instead of the three shapes")
    bench.add_argument("settings", nargs="*", metavar="key=value", help="settings to use instead of the file's")
    bench.add_argument("--updates", type=at_least(1), default=3, metavar="N", help="timed updates of each side, after one that is not (3)")
    bench.add_argument(
        "--ranks",
        type=at_least(1),
        default=1,
        metavar="N",
        help="instead: the same batch on 1 and N ranks, with the times of collectives",
    )
    bench.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"), help="of the three shapes (auto)")
    bench.add_argument(
        "--peer", default=None, metavar="FOLDER", help="also DistilBERT's step: distillation/ of transformers-research-projects"
    )
    bench.add_argument("--json", default=None, metavar="FILE", help="also write the figures there")
    bench.add_argument("--picture", default=None, metavar="FILE", help="also draw them into this PNG")
