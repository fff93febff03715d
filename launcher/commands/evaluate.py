"""Arguments of `stillhouse evaluate` and `stillhouse layers`."""

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
