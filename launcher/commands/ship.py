"""Arguments of the verbs that write a finished model elsewhere: `stillhouse export` and `push`."""

import argparse

from launcher.commands.common import RAW, Verbs, at_least

EXPORT = """Write a model as a folder that runs with onnxruntime and tokenizers alone, and compare it with the original first. A model
that lost more than --max-drop points, is not smaller or is slower than fp32 here is an error. More: docs/shipping.md.
"""
EXPORT_EXAMPLE = """examples:
  stillhouse export runs/sst2/student --precision int8 --out shipped/sst2 --task-config tasks/sst2 --set data.folder=glue/SST-2
  stillhouse export runs/laptop/student --precision int8 --out shipped/mlm --shards shards/mine
  stillhouse export runs/laptop/student --format safetensors --precision bf16 --out shipped/bf16 --shards shards/mine
"""
PUSH = """Send the student of a finished run and its model card to a model hub. Checkpoints, logs and paths stay here. The token
comes from `hf auth login` or HF_TOKEN. More: docs/publishing.md.
"""
PUSH_EXAMPLE = """examples:
  stillhouse push runs/laptop my-name/my-student --licence apache-2.0 --language en --dry-run
  stillhouse push runs/laptop my-name/my-student --licence apache-2.0 --language en --private
  stillhouse push runs/demo/teacher/model my-name/my-teacher
"""


def add_export(verbs: Verbs) -> None:
    """`stillhouse export`."""
    export = verbs.add_parser(
        "export",
        help="a model as ONNX, in 8 bits, compared with the original",
        description=EXPORT,
        epilog=EXPORT_EXAMPLE,
        formatter_class=RAW,
    )
    export.add_argument("model", metavar="MODEL", help="a Hugging Face model folder or hub name")
    export.add_argument("--out", required=True, metavar="DIR", help="the folder to write; an earlier export there is replaced")
    export.add_argument("--format", default="onnx", choices=("onnx", "safetensors"), help="of the weights (onnx)")
    precisions = ("fp32", "int8", "int8-static", "int4", "auto", "bf16")
    export.add_argument("--precision", default="fp32", choices=precisions, help="of the weights (fp32)")
    export.add_argument("--tables", default=None, choices=("int8", "int4", "fp32"), help="precision of embedding tables (int8)")
    export.add_argument("--block", type=int, default=None, choices=(32, 128), help="weights that share a scale, at 4 bits (32)")
    scales = "int8: activation scales for each token, or for the whole batch (token)"
    export.add_argument("--activations", default=None, choices=("token", "tensor"), help=scales)
    rows = "int8-static: rows of the train split or the shards' train part (256)"
    export.add_argument("--calibration-rows", type=at_least(32), default=None, metavar="N", help=rows)
    compared = export.add_mutually_exclusive_group()
    compared.add_argument("--task-config", default=None, metavar="YAML", help="compare on the development set of this task")
    compared.add_argument("--shards", default=None, metavar="FOLDER", help="compare on the held-out part of these shards")
    export.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="a setting of the task")
    export.add_argument("--windows", type=at_least(16), default=512, metavar="N", help="held-out rows to compare on (512)")
    export.add_argument(
        "--max-drop", type=_points, default=0.5, metavar="POINTS", help="the most points of the metric that may be lost (0.5)"
    )
    export.add_argument("--keep-fp32", nargs="+", default=[], metavar="PART", help="parts in fp32, as layers.0.attention or embeddings")
    export.add_argument("--opset", type=int, default=20, choices=(20, 21), help="ONNX operator set (20)")
    export.add_argument("--force", action="store_true", help="write the folder in spite of a failed comparison; the record names it")
    export.add_argument("--push-to-hub", default=None, metavar="REPO", help="then send the folder to owner/name on the hub, as push does")
    _add_hub_options(export)


def add_push(verbs: Verbs) -> None:
    """`stillhouse push`."""
    push = verbs.add_parser(
        "push", help="publish a student and its model card on a hub", description=PUSH, epilog=PUSH_EXAMPLE, formatter_class=RAW
    )
    push.add_argument("run", metavar="RUN", help="the folder of a finished run, a model folder, or one from stillhouse export")
    push.add_argument("repo", metavar="REPO", help="owner/name on the hub (HF_ENDPOINT; huggingface.co)")
    _add_hub_options(push)


def _add_hub_options(parser: argparse.ArgumentParser) -> None:
    """Options of the card and the repository."""
    parser.add_argument("--licence", "--license", default=None, metavar="NAME", help="for the card, as apache-2.0 (none)")
    parser.add_argument("--language", default=None, metavar="CODE", help="for the card, as en or en,de (none)")
    parser.add_argument("--base-model", default=None, metavar="NAME", help="for the card: the hub name of a teacher that is a local folder")
    parser.add_argument("--private", action="store_true", help="make the repository private, and refuse a public one")
    parser.add_argument("--dry-run", action="store_true", help="list the files with sizes, and send nothing")


def _points(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"expected points from 0 to 100, got {text}")
    return value
