"""ONNX models whose weights stay apart: one file below a limit, two above it, and no second copy of the weights."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kd.errors import KdError
from kd.export.onnx_graph import Exported, export_graph, parity
from kd.export.onnx_model import OnnxModel
from kd.export.runtime import Session
from kd.models.encoder import Encoder
from tests.kd.conftest import MODELS

pytestmark = pytest.mark.tasks

TABLE = np.arange(300 * 256, dtype=np.float32).reshape(300, 256)
"""307,200 bytes: it goes into the second file."""


def model():
    """outputs = table[ids] wide + 1: one large weight in rows, one in columns, and two small ones."""
    add = np.array([1.0], np.float32)
    wide = np.asfortranarray(np.ones((256, 300), np.float32))
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("MatMul", ["rows", "wide"], ["product"]),
        helper.make_node("Add", ["product", "one"], ["outputs"]),
    ]
    inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])]
    outputs = [helper.make_tensor_value_info("outputs", TensorProto.FLOAT, ["n", 300])]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return OnnxModel(proto, {"table": TABLE, "wide": wide, "one": add, "scalar": np.array(3, np.int64)})


EXPECTED = TABLE[[2, 5]].sum(axis=1, keepdims=True) + 1


def test_the_bytes_are_those_that_protobuf_writes(tmp_path):
    made = model()
    content = made.content()
    read = onnx.load_from_string(content)
    onnx.checker.check_model(read)
    assert {one.name: numpy_helper.to_array(one).tolist() for one in read.graph.initializer} == {
        name: array.tolist() for name, array in made.weights.items()
    }
    assert len(read.SerializeToString()) == len(content) == made.size
    made.write(tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_beyond_the_limit_of_a_file_the_weights_are_in_a_second_one(tmp_path, monkeypatch):
    made = model()
    single = made.size
    monkeypatch.setattr("kd.export.onnx_model.MOST_BYTES", single)
    made.write(tmp_path / "model.onnx")
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sorted(sizes) == ["model.onnx", "model.onnx.data"]
    assert sum(sizes.values()) >= 2 * TABLE.nbytes
    assert made.size == pytest.approx(sum(sizes.values()), abs=64)  # without the name of the second file
    onnx.checker.check_model(str(tmp_path / "model.onnx"))
    (got,) = Session(tmp_path / "model.onnx").run([np.array([2, 5])])
    np.testing.assert_allclose(got, np.repeat(EXPECTED, 300, 1))


def test_a_model_below_the_limit_is_one_file(tmp_path, monkeypatch):
    made = model()
    monkeypatch.setattr("kd.export.onnx_model.MOST_BYTES", made.size + 1)
    made.write(tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_missing_second_file_is_one_line(tmp_path):
    model().write(tmp_path / "model.onnx", mapped=True)
    (tmp_path / "model.onnx.data").unlink()
    with pytest.raises(KdError, match=r"model\.onnx: expected a model that ONNX Runtime can load, got [^\n]*data[^\n]*; export it again$"):
        Session(tmp_path / "model.onnx")


def test_a_large_model_runs_from_a_temporary_file_that_does_not_stay(tmp_path, monkeypatch):
    monkeypatch.setattr("kd.export.runtime.MAPPED_BYTES", 1000)
    session = Session(model(), scratch=tmp_path)
    assert list(tmp_path.iterdir()) == []
    np.testing.assert_allclose(session.run([np.array([2, 5])])[0], np.repeat(EXPECTED, 300, 1))


def test_the_weights_of_a_graph_are_those_of_torch_in_the_same_memory(tiny_distilbert):
    graph = export_graph(Exported(tiny_distilbert, "logits"))
    memory = {weight.data_ptr() for weight in tiny_distilbert.hf.parameters()}
    large = [one for one in graph.weights.values() if one.nbytes > 4000]
    assert large
    assert all(one.ctypes.data in memory for one in large)


def test_logits_of_a_large_vocabulary_are_compared_in_small_batches(monkeypatch):
    exported = Exported(Encoder(MODELS["bert"](layers=1)), "logits")
    monkeypatch.setattr("kd.export.onnx_graph.OUTPUT_BYTES", 4 * exported.vocabulary * 20)
    session = Session(export_graph(exported))
    shapes = []
    run = session.run
    monkeypatch.setattr(session, "run", lambda arrays: shapes.append(arrays[0].shape) or run(arrays))
    parity(exported, session)
    assert shapes == [(1, 1), (1, 7), (1, 16), (1, 20), (1, 20)]


MEMORY = """
import threading, time, psutil
from transformers import BertConfig, BertForMaskedLM
from kd.export.onnx_graph import Exported, export_graph, parity
from kd.export.runtime import Session
from kd.models.encoder import Encoder
config = BertConfig(vocab_size=200_000, hidden_size=256, num_hidden_layers=1, num_attention_heads=4, intermediate_size=512)
encoder = Encoder(BertForMaskedLM(config))
weights = 4 * sum(weight.numel() for weight in encoder.hf.parameters())
process = psutil.Process()
small = Exported(Encoder(BertForMaskedLM(BertConfig(vocab_size=300, hidden_size=32, num_hidden_layers=1, num_attention_heads=4))), "logits")
export_graph(small)
before, peak = process.memory_info().rss, [0]
def watch():
    while True:
        peak[0] = max(peak[0], process.memory_info().rss)
        time.sleep(0.002)
threading.Thread(target=watch, daemon=True).start()
graph = export_graph(Exported(encoder, "logits"))
print((peak[0] - before) / weights)
"""


@pytest.mark.slow
def test_exporting_a_graph_makes_no_copy_of_its_weights(run_ranks, tmp_path):
    (tmp_path / "memory.py").write_text(MEMORY)
    share = run_ranks(1, tmp_path / "memory.py").splitlines()[-1]
    assert float(share) < 0.35  # a graph with its own weights has 1 or more
