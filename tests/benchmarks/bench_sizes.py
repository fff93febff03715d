"""Bytes on disk and quality of encoders at each precision of `stillhouse export`, as Markdown: `python tests/benchmarks/bench_sizes.py`.

Sizes: classifiers with random weights, the shapes of real models, and a vocabulary of 30,522. They prove nothing about quality.
Quality: `--model FOLDER --task-config YAML --set KEY=VALUE …` makes a table for a fine-tuned model instead, on the task's development set.
Speed: `--tables` measures gathers from an embedding table at each precision instead, in turns.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper
from transformers import BertConfig, BertForSequenceClassification

from kd.export.onnx_graph import Exported, export_graph
from kd.export.onnx_model import OnnxModel
from kd.export.quantise.rewrite import quantise
from kd.export.quantise.rounding import blocks_to_int4, rows_to_int8
from kd.export.quantise.scheme import Scheme
from kd.export.runtime import Session, TorchSession
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
                graph.write(path)
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
        made_of, session, _ = graph.at(scheme)
        made = comparison.quality(session)
        lost = f"{made.drop:.2f} ({made.low:.2f} to {made.high:.2f})"
        error = f"{100 * comparison.error(session):.2f} %"
        equal = "-" if made.agreement is None else f"{made.agreement:.2%}"
        cells = [f"{name}, {made.metric} {made.original:.4f}", f"{made_of.size / 1e6:.1f}", lost, equal, error]
        print(f"| {' | '.join(cells)} |", flush=True)


GATHERS = ("fp32", "int8, plain operators", "int8, GatherBlockQuantized", "int4, GatherBlockQuantized")


def gather_model(kind: str, table: np.ndarray, block: int = 32) -> OnnxModel:
    """A graph of one gather: ids [B, S] -> [B, S, width] fp32."""
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "length"])
    rows = helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["batch", "length", table.shape[1]])
    sizes = {"domain": "com.microsoft", "block_size": block, "gather_axis": 0, "quantize_axis": 1}
    if kind == "fp32":
        weights, nodes = {"table": table}, [helper.make_node("Gather", ["table", "ids"], ["rows"])]
    elif kind == "int8, plain operators":
        values, scales = rows_to_int8(table)
        weights = {"table": values, "scales": scales, "last": np.array([-1], np.int64)}
        nodes = [
            helper.make_node("Gather", ["table", "ids"], ["small"]),
            helper.make_node("Cast", ["small"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("Gather", ["scales", "ids"], ["scale"]),
            helper.make_node("Unsqueeze", ["scale", "last"], ["column"]),
            helper.make_node("Mul", ["wide", "column"], ["rows"]),
        ]
    elif kind == "int8, GatherBlockQuantized":
        blocks, scales = rows_to_int8(table.reshape(-1, block))
        unsigned = (blocks.astype(np.int16) + 128).astype(np.uint8).reshape(table.shape)
        weights = {"table": unsigned, "scales": scales.reshape(len(table), -1)}
        nodes = [helper.make_node("GatherBlockQuantized", ["table", "ids", "scales"], ["rows"], bits=8, **sizes)]
    else:
        packed, scales = blocks_to_int4(table, block)
        weights = {"table": packed.reshape(len(table), -1), "scales": scales}
        nodes = [helper.make_node("GatherBlockQuantized", ["table", "ids", "scales"], ["rows"], bits=4, **sizes)]
    graph = helper.make_graph(nodes, "gather", [ids], [rows])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return OnnxModel(helper.make_model(graph, opset_imports=opsets, ir_version=10), weights)


def tables(repetitions: int = 40, gathers: int = 200) -> None:
    """CPU time of one gather at each precision, in turns, and the error of its rows."""
    print("| table | tokens | form | MB | us of CPU time | of fp32 | error of rows |\n|" + " --- |" * 7, flush=True)
    for rows, width in ((30_522, 384), (30_522, 768), (250_002, 768)):
        table = np.random.default_rng(0).normal(size=(rows, width)).astype(np.float32)
        models = {kind: gather_model(kind, table) for kind in GATHERS}
        sessions = {kind: Session(model, threads=1) for kind, model in models.items()}
        for shape in ((1, 16), (1, 128), (8, 128)):
            count = max(1, gathers * 16 // (shape[0] * shape[1]))
            ids = np.random.default_rng(1).integers(8, rows, shape)
            before = sessions["fp32"].run([ids])[0]
            spent: dict[str, list[float]] = {kind: [] for kind in GATHERS}
            for _ in range(repetitions):
                for kind, session in sessions.items():
                    begin = time.process_time_ns()
                    for _ in range(count):
                        session.run([ids])
                    spent[kind].append((time.process_time_ns() - begin) / count / 1000)
            base = float(np.median(spent["fp32"]))
            for kind, session in sessions.items():
                error = np.linalg.norm(session.run([ids])[0] - before) / np.linalg.norm(before)
                middle = float(np.median(spent[kind]))
                figures = f"{models[kind].size / 1e6:.1f} | {middle:.1f} | {middle / base:.2f} | {100 * error:.2f} %"
                print(f"| {rows:,} x {width} | {shape[0]} x {shape[1]} | {kind} | {figures} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=None)
    parser.add_argument("--task-config", default=None)
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--tables", action="store_true")
    arguments = parser.parse_args()
    arguments.shards, arguments.calibration_rows = None, None
    if arguments.tables:
        tables()
        return
    if arguments.model:
        quality(arguments)
    else:
        sizes()


if __name__ == "__main__":
    main()
