"""Bytes on disk and quality of encoders at each precision of `stillhouse export`, as Markdown: `python tests/benchmarks/bench_sizes.py`.

Sizes: classifiers with random weights, the shapes of real models, and a vocabulary of 30,522. They prove nothing about quality.
Quality: `--model FOLDER --task-config YAML --set KEY=VALUE …` adds a table for a fine-tuned model, on the task's development set.
"""

import argparse
import tempfile
from pathlib import Path

from transformers import BertConfig, BertForSequenceClassification

from kd.export.onnx_graph import Exported, export_graph
from kd.export.quantise.rewrite import quantise
from kd.export.quantise.scheme import Scheme
from kd.export.runtime import TorchSession
from kd.tasks.model import TaskEncoder
from launcher.deployment.conversion.data import ExportData
from launcher.deployment.conversion.graph import Graph
from launcher.deployment.models import open_model

SHAPES = {
    "BERT-base 12x768": (12, 768, 12, 3072),
    "6x768": (6, 768, 12, 3072),
    "6x512": (6, 512, 8, 2048),
    "6x384": (6, 384, 12, 1536),
    "4x312": (4, 312, 12, 1200),
    "3x384": (3, 384, 12, 1536),
}
"""Layers, width, heads, width of the feed-forward layer."""
SCHEMES = {
    "INT8 linears only": Scheme(tables="fp32"),
    "INT8": Scheme(),
    "INT8, 4-bit tables": Scheme(tables="int4"),
    "4-bit, blocks of 32": Scheme("int4", "int4"),
    "4-bit, blocks of 128": Scheme("int4", "int4", block=128),
}


def sizes() -> None:
    """The table of sizes, from files."""
    print(f"| MB on disk, random weights | fp32 | {' | '.join(SCHEMES)} |\n|{' --- |' * (2 + len(SCHEMES))}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, (layers, width, heads, inner) in SHAPES.items():
            shape = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": inner}
            exported = Exported(TaskEncoder(BertForSequenceClassification(BertConfig(**shape)), "classification"), "logits")
            fp32 = export_graph(exported)
            cells = []
            for graph in (fp32, *(quantise(fp32, exported, scheme).graph for scheme in SCHEMES.values())):
                path = Path(folder) / "model.onnx"
                path.write_bytes(graph.SerializeToString())
                cells.append(f"{path.stat().st_size / 1e6:.1f}")
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


def quality(arguments: argparse.Namespace) -> None:
    """The table of one fine-tuned model: points of its metric that each precision loses, and equal predictions."""
    data = ExportData(arguments)
    model = open_model(arguments.model)
    comparison = data.comparison(model, TorchSession(model.exported))
    assert comparison is not None
    graph = Graph(model, 20)
    print(f"\n| {Path(arguments.model).name}, real weights | MB | points lost, 95 % interval | equal predictions | squared error |")
    print(f"|{' --- |' * 5}", flush=True)
    for name, scheme in SCHEMES.items():
        content, session, _ = graph.at(scheme)
        made = comparison.quality(session)
        lost = f"{made.drop:.2f} ({made.low:.2f} to {made.high:.2f})"
        error = f"{100 * comparison.error(session):.2f} %"
        cells = [f"{name}, {made.metric} {made.original:.4f}", f"{len(content) / 1e6:.1f}", lost, f"{made.agreement:.2%}", error]
        print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=None)
    parser.add_argument("--task-config", default=None)
    parser.add_argument("--set", dest="settings", action="append", default=[])
    arguments = parser.parse_args()
    arguments.shards, arguments.calibration_rows = None, None
    sizes()
    if arguments.model:
        quality(arguments)


if __name__ == "__main__":
    main()
