"""Bytes on disk of BERT encoders exported in fp32 and INT8, as Markdown: `python tests/benchmarks/bench_sizes.py`.

The weights are random, with the shapes of real models and a vocabulary of 30,522: sizes do not depend on values. Quality is not measured.
"""

import tempfile
from pathlib import Path

from transformers import BertConfig, BertForSequenceClassification

from kd.export.onnx_graph import Exported, export_graph
from kd.export.quantise import quantise
from kd.tasks.model import TaskEncoder

SHAPES = {
    "BERT-base 12x768": (12, 768, 12, 3072),
    "6x768": (6, 768, 12, 3072),
    "6x512": (6, 512, 8, 2048),
    "6x384": (6, 384, 12, 1536),
    "4x312": (4, 312, 12, 1200),
    "3x384": (3, 384, 12, 1536),
}
"""Layers, width, heads, width of the feed-forward layer."""


def megabytes(folder: Path, graph: object) -> float:
    """Decimal megabytes of the file."""
    path = folder / "model.onnx"
    path.write_bytes(graph.SerializeToString())
    return path.stat().st_size / 1e6


def main() -> None:
    print("| classifier, random weights | fp32, MB | INT8, MB |\n| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for name, (layers, width, heads, inner) in SHAPES.items():
            sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": inner}
            exported = Exported(TaskEncoder(BertForSequenceClassification(BertConfig(**sizes)), "classification"), "logits")
            graph = export_graph(exported)
            figures = [megabytes(Path(folder), one) for one in (graph, quantise(graph, exported).graph)]
            print(f"| {name} | {figures[0]:.1f} | {figures[1]:.1f} |", flush=True)


if __name__ == "__main__":
    main()
