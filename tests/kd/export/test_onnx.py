"""Graphs of every family compute what torch computes; at 8 bits their tables keep small rows beside large ones."""

import numpy as np
import onnx
import pytest
import torch

from kd.errors import KdError
from kd.export.extra import onnx_module
from kd.export.onnx_graph import Exported, export_graph, parity
from kd.export.quantise.rewrite import quantise
from kd.export.quantise.rounding import rows_to_int8
from kd.export.quantise.scheme import BLOCKS, Scheme
from kd.export.runtime import Session
from kd.models.encoder import Encoder
from kd.models.families import family_of
from kd.tasks.model import TaskEncoder
from tests.kd.conftest import MODELS
from tests.kd.tasks.conftest import task_model

pytestmark = pytest.mark.tasks

FAMILIES = [
    "bert",
    "distilbert",
    "roberta",
    "xlm-roberta",
    "electra",
    "mpnet",
    "deberta-v3",
    "deberta with a convolution",
    "modernbert",
    "albert",
]


@pytest.fixture(scope="module")
def graphs():
    """graphs(family): (Exported, graph) of its masked-language model, made once."""
    made = {}

    def make(family):
        if family not in made:
            exported = Exported(Encoder(MODELS[family](layers=2 if family in ("bert", "modernbert") else 1)), "logits")
            made[family] = exported, export_graph(exported)
        return made[family]

    return make


@pytest.mark.parametrize("family", FAMILIES)
def test_a_masked_language_model_of_each_family_is_the_same_in_onnx_runtime(graphs, family):
    exported, graph = graphs(family)
    assert parity(exported, Session(graph)).relative < 2e-6  # fp32 sums in another order
    assert [entry.version for entry in graph.proto.opset_import] == [20]
    assert str(torch.__file__)[:8].encode() not in graph.content()
    assert b".py" not in graph.content()


@pytest.mark.parametrize("family", FAMILIES)
def test_eight_bits_stay_near_and_every_large_matrix_has_them(graphs, family):
    exported, graph = graphs(family)
    made = quantise(graph, exported, Scheme())
    onnx.checker.check_model(made.graph.content())
    assert parity(exported, Session(made.graph)).relative < 0.15  # 8 bits of tiny random layers
    floats = {name: one for name, one in made.graph.weights.items() if one.dtype == np.float32 and one.ndim == 2}
    left = [name for name, one in floats.items() if min(one.shape) > 2 and "rel_embeddings" not in name]
    assert left == []


@pytest.mark.parametrize("family", FAMILIES)
def test_4_bits_stay_near_and_a_decoder_shares_the_table(graphs, family):
    exported, graph = graphs(family)
    for block in BLOCKS:
        made = quantise(graph, exported, Scheme("int4", "int4", block=block))
        assert parity(exported, Session(made.graph)).relative < 0.8  # 4 bits of tiny random layers
        tables = [one for one in made.graph.weights.values() if one.dtype == np.uint8 and one.ndim and len(one) == 120]
        assert len(tables) == 1
        own = family_of(exported.hf.config)  # a tied table has one of its two names
        (table,) = {f"{own.word_embeddings}.weight", f"{own.decoder}.weight"} & made.precisions.keys()
        assert made.precisions[table] == f"int4, a scale for {block} weights"


def test_a_tied_decoder_and_the_embeddings_are_one_table(graphs):
    exported, graph = graphs("bert")
    made = quantise(graph, exported, Scheme())
    tables = [one for one in made.graph.weights.values() if one.shape == (120, 32)]
    assert [one.dtype for one in tables] == [np.int8]
    assert made.precisions["bert.embeddings.word_embeddings.weight"] == "int8, a scale per row"


def test_a_kept_part_stays_in_fp32(graphs):
    exported, graph = graphs("bert")
    made = quantise(graph, exported, Scheme(), keep=lambda name: "layer.0.attention" in name)
    kept = {name for name, precision in made.precisions.items() if precision == "fp32"}
    assert "bert.encoder.layer.0.attention.self.query.weight" in kept
    assert "bert.encoder.layer.1.attention.self.query.weight" not in kept


def test_a_large_row_does_not_spoil_the_others():
    rows = np.random.default_rng(1).normal(size=(50, 64)).astype(np.float32)
    rows[7] *= 8
    values, scales = rows_to_int8(rows)
    error = np.linalg.norm(values * scales[:, None] - rows, axis=1) / np.linalg.norm(rows, axis=1)
    assert error.max() < 0.01  # half of a step of 1/127 of the largest, which is about three standard deviations
    assert rows_to_int8(np.zeros((1, 4), np.float32))[1].tolist() == [1]


@pytest.mark.parametrize("kind", ["classification", "multi_label", "regression", "tagging", "question_answering"])
def test_each_task_head_is_exported_and_its_classifier_stays_in_fp32(kind):
    task = TaskEncoder(task_model("bert", kind, layers=1), kind)
    exported = Exported(task, "spans" if kind == "question_answering" else "logits")
    graph = export_graph(exported)
    assert parity(exported, Session(graph)).relative < 2e-6
    made = quantise(graph, exported, Scheme())
    session = Session(made.graph)
    assert session.outputs == (["start_logits", "end_logits"] if kind == "question_answering" else ["logits"])
    assert parity(exported, session).relative < 0.15
    last = "qa_outputs.weight" if kind == "question_answering" else "classifier.weight"
    shape = list(task.hf.get_parameter(last).shape)
    assert any(sorted(one.shape) == sorted(shape) for one in made.graph.weights.values() if one.dtype == np.float32)


@pytest.mark.parametrize(
    ("family", "kind", "last"),
    [
        ("roberta", "classification", "classifier.out_proj.weight"),
        ("deberta-v3", "tagging", "classifier.weight"),
        ("modernbert", "question_answering", "classifier.weight"),
        ("xlm-roberta", "question_answering", "qa_outputs.weight"),
        ("electra", "classification", "classifier.out_proj.weight"),
        ("mpnet", "tagging", "classifier.weight"),
        ("albert", "question_answering", "qa_outputs.weight"),
    ],
)
def test_task_heads_of_other_families_are_exported(family, kind, last):
    exported = Exported(TaskEncoder(task_model(family, kind, layers=1), kind), "spans" if kind == "question_answering" else "logits")
    graph = export_graph(exported)
    assert parity(exported, Session(graph)).relative < 2e-6
    for scheme, most in ((Scheme(), 0.15), (Scheme("int4", "int4"), 0.8)):  # tiny random layers
        made = quantise(graph, exported, scheme)
        assert made.precisions[last] == "fp32"
        assert parity(exported, Session(made.graph)).relative < most


def test_a_sliding_window_is_the_same_beyond_its_width():
    model = MODELS["modernbert"](layers=2, max_position_embeddings=300, local_attention=32)
    exported = Exported(Encoder(model), "logits")
    assert parity(exported, Session(export_graph(exported))).relative < 4e-6  # fp32 sums of 300 tokens


def test_hidden_states_are_exported_without_the_head(tiny_distilbert):
    exported = Exported(tiny_distilbert, "hidden")
    graph = export_graph(exported)
    assert parity(exported, Session(graph)).relative < 2e-6
    assert [output.name for output in graph.proto.graph.output] == ["last_hidden_state"]
    assert not any(one.shape == (32, 120) for one in graph.weights.values())


def test_a_truncated_file_is_one_line(tmp_path, graphs):
    _, graph = graphs("bert")
    path = tmp_path / "model.onnx"
    path.write_bytes(graph.content()[:-2000])
    with pytest.raises(KdError, match=r"model\.onnx: expected a model that ONNX Runtime can load, got [^\n]*; export it again$"):
        Session(path)


def test_a_missing_package_is_one_line_with_the_install_command():
    with pytest.raises(
        KdError, match=r"^onnx_that_is_not_here: expected the package for ONNX, got none; run: pip install 'stillhouse\[onnx\]'$"
    ):
        onnx_module("onnx_that_is_not_here.helper")
