"""Graphs at 8 and 4 bits: errors of rounding, independence of rows, calibration, and what stays in fp32."""

import numpy as np
import onnx
import pytest

from kd.errors import KdError
from kd.export.onnx_graph import Exported, export_graph, parity
from kd.export.onnx_model import OnnxModel
from kd.export.quantise.activations import scale_and_zero
from kd.export.quantise.calibration import Calibration
from kd.export.quantise.rewrite import linear_inputs, quantise
from kd.export.quantise.rounding import blocks_to_int4, rows_to_int8
from kd.export.quantise.scheme import Scheme
from kd.export.runtime import Session
from kd.models.encoder import Encoder
from kd.tasks.model import TaskEncoder
from tests.kd.conftest import MODELS
from tests.kd.tasks.conftest import task_model

pytestmark = pytest.mark.tasks


@pytest.fixture(scope="module")
def classifier():
    """(Exported, graph) of a tiny classifier."""
    exported = Exported(TaskEncoder(task_model("bert", "classification", layers=2), "classification"), "logits")
    return exported, export_graph(exported)


@pytest.fixture(scope="module")
def mlm():
    exported = Exported(Encoder(MODELS["bert"](layers=2)), "logits")
    return exported, export_graph(exported)


def run(made, arrays):
    onnx.checker.check_model(made.graph.content())
    return Session(made.graph, threads=1).run(arrays)[0]


def rows(exported, tokens=(40, 7, 12, 3), padded=40):
    """Rows of these lengths, padded on the right."""
    ids = np.random.default_rng(0).integers(5, exported.vocabulary, (len(tokens), padded))
    mask = (np.arange(padded)[None] < np.array(tokens)[:, None]).astype(np.int64)
    return [np.where(mask > 0, ids, 0), mask, np.zeros_like(ids)]


@pytest.mark.parametrize("scheme", [Scheme(), Scheme("int8-static"), Scheme("int4", "int4")], ids=["token", "static", "int4"])
def test_a_row_has_the_same_logits_alone_and_in_a_padded_batch(classifier, scheme):
    exported, graph = classifier
    batch = rows(exported, tokens=tuple(range(3, 35, 2)))
    if scheme.linears == "int8-static":
        calibration = Calibration(graph, exported, scheme)
        calibration.observe(batch)
        scheme = Scheme("int8-static", ranges=calibration.ranges)
    made = quantise(graph, exported, scheme)
    together = run(made, batch)
    for row, tokens in enumerate(range(3, 35, 2)):
        alone = run(made, [array[row : row + 1, :tokens] for array in batch])
        np.testing.assert_allclose(together[row], alone[0], atol=2e-5)  # fp32 sums in another order


def test_with_one_scale_for_the_tensor_a_row_depends_on_its_batch(classifier):
    exported, graph = classifier
    batch = rows(exported)
    made = quantise(graph, exported, Scheme(activations="tensor"))
    alone = run(made, [array[1:2, :7] for array in batch])
    assert np.abs(run(made, batch)[1] - alone[0]).max() > 1e-4


@pytest.mark.parametrize("width", [32, 40, 312])
@pytest.mark.parametrize("block", [32, 128])
def test_numbers_of_4_bits_are_within_half_a_step(width, block):
    weight = np.random.default_rng(2).normal(size=(9, width)).astype(np.float32)
    weight[4] = 0
    packed, scales = blocks_to_int4(weight, block)
    blocks = -(-width // block)
    assert packed.shape == (9, blocks, block // 2)
    numbers = np.stack([packed & 15, packed >> 4], -1).reshape(9, blocks, block).astype(np.float32) - 8
    back = (numbers * scales[..., None]).reshape(9, -1)
    assert np.abs(back[:, width:]).max(initial=0) == 0
    largest = np.abs(weight).max(1, keepdims=True)
    assert (np.abs(back[:, :width] - weight) <= 0.2 * largest).all()  # a clipped end may be further away than half of a step, 0.07
    assert np.linalg.norm(back[:, :width] - weight) < 0.11 * np.linalg.norm(weight)  # with rounding to extreme / 8 alone: 0.103


def test_large_matrices_are_rounded_in_pieces_alike(monkeypatch):
    weight = np.random.default_rng(3).normal(size=(50, 64)).astype(np.float32)
    whole = [*blocks_to_int4(weight, 32), *rows_to_int8(weight)]
    monkeypatch.setattr("kd.export.quantise.rounding.CHUNK", 640)
    for one, other in zip([*blocks_to_int4(weight, 32), *rows_to_int8(weight)], whole, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("scheme", "table", "linear"),
    [
        (Scheme(tables="int4"), "int4, a scale for 32 weights", "int8, a scale per output"),
        (Scheme(tables="fp32"), "fp32", "int8, a scale per output"),
        (Scheme("int4"), "int8, a scale per row", "int4, a scale for 32 weights"),
        (Scheme("int4", block=128), "int8, a scale per row", "int4, a scale for 128 weights"),
    ],
)
def test_tables_and_linear_maps_have_precisions_of_their_own(mlm, scheme, table, linear):
    exported, graph = mlm
    made = quantise(graph, exported, scheme)
    assert made.precisions["bert.embeddings.word_embeddings.weight"] == table
    assert made.precisions["bert.encoder.layer.1.intermediate.dense.weight"] == linear
    assert parity(exported, Session(made.graph)).relative < 0.8
    decoders = [one for one in made.graph.weights.values() if 120 in one.shape and one.ndim == 2]
    assert len(decoders) == (2 if "int4" in table else 1)  # the table alone, and the scales of its blocks


def test_a_range_is_that_of_real_tokens(classifier):
    exported, graph = classifier
    scheme = Scheme("int8-static")
    batch = rows(exported, tokens=(5,), padded=5)
    longer = rows(exported, tokens=(5,), padded=40)
    longer[0][0, :5] = batch[0][0]
    ranges = []
    for arrays in (batch, longer):
        calibration = Calibration(graph, exported, scheme)
        calibration.observe(arrays)
        ranges.append(calibration.ranges)
    assert list(ranges[0]) == linear_inputs(graph, exported, scheme)
    np.testing.assert_allclose([ranges[0][name] for name in ranges[0]], [ranges[1][name] for name in ranges[0]], atol=1e-5)


def test_a_static_graph_has_no_dynamic_scale_and_stays_near(classifier):
    exported, graph = classifier
    scheme = Scheme("int8-static")
    calibration = Calibration(graph, exported, scheme)
    calibration.observe(rows(exported))
    made = quantise(graph, exported, Scheme("int8-static", ranges=calibration.ranges))
    assert not {node.op_type for node in made.graph.proto.graph.node} & {"DynamicQuantizeLinear", "ReduceMax"}
    assert parity(exported, Session(made.graph)).relative < 0.3


def test_zero_is_exact_in_a_range():
    scale, zero = scale_and_zero(0.5, 2.0)
    assert (float(scale), int(zero)) == (pytest.approx(2 / 255), 0)
    scale, zero = scale_and_zero(-1.0, 3.0)
    assert (float(scale), int(zero)) == (pytest.approx(4 / 255), 64)
    assert scale_and_zero(0.0, 0.0)[0] > 0


def test_eight_bit_rows_are_within_half_a_step():
    weight = np.array([[1.27, -0.63, 0.0], [0.0, 0.0, 0.0]], np.float32)
    values, scales = rows_to_int8(weight)
    assert values.tolist() == [[127, -63, 0], [0, 0, 0]]
    assert scales.tolist() == [pytest.approx(0.01), 1.0]


def test_an_opset_that_the_runtime_lacks_is_one_line(mlm):
    _, graph = mlm
    newer = OnnxModel(type(graph.proto)(), graph.weights)
    newer.proto.CopyFrom(graph.proto)
    newer.proto.opset_import[0].version = 99
    with pytest.raises(KdError, match=r"model.onnx: expected a model that ONNX Runtime can load, got [^\n]*opset[^\n]*; export it again$"):
        Session(newer)
