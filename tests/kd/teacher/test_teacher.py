import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from teacher_on_ranks import STEPS

from kd.errors import KdError
from kd.models.config import quiet_transformers
from kd.models.encoder import Encoder
from kd.teacher.settings import TeacherSettings
from kd.teacher.teachers import make_teacher

CPU = torch.device("cpu")
FP32_ERROR = 1e-4  # sums in another order; the logits are of order 10
BF16_ERROR = 0.3  # 8 bits of mantissa through 4 layers, on the same logits


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_a_replicated_teacher_gives_what_its_encoder_gives(make_model, saved, tiny_batch, family):
    model = make_model(family)
    teacher = make_teacher(TeacherSettings(model=saved(model)), "fp32", CPU)
    encoder = Encoder(model)
    outputs = teacher(tiny_batch, tiny_batch.predicted)
    with torch.no_grad():
        last = encoder(tiny_batch).last_hidden
    assert torch.equal(outputs.last_hidden, last)
    assert outputs.transformed.shape == (14, 32)
    with teacher.decoder() as (weight, bias):
        torch.testing.assert_close(outputs.transformed @ weight.T + bias, encoder.logits(last[tiny_batch.predicted]))
    assert (teacher.vocabulary, teacher.width, teacher.layers) == (120, 32, 4)
    assert teacher.provides == {"logits", "last_hidden", "embeddings", "hidden", "queries", "keys", "values"}


def test_two_passes_are_identical_even_after_someone_called_train(make_model, saved, tiny_batch):
    teacher = make_teacher(TeacherSettings(model=saved(make_model("bert"))), "fp32", CPU)
    first = teacher(tiny_batch, tiny_batch.real)
    teacher.module.train()
    second = teacher(tiny_batch, tiny_batch.real)
    assert torch.equal(first.last_hidden, second.last_hidden)
    assert torch.equal(first.transformed, second.transformed)


def test_a_teacher_has_nothing_for_an_optimizer(make_model, saved, tiny_batch):
    teacher = make_teacher(TeacherSettings(model=saved(make_model("bert"))), "fp32", CPU)
    assert not hasattr(teacher, "parameters")
    assert not any(weight.requires_grad for weight in teacher.module.parameters())
    assert not teacher(tiny_batch, tiny_batch.real).transformed.requires_grad


@pytest.mark.parametrize(
    ("run", "own", "dtype"), [("fp32", None, torch.float32), ("bf16", None, torch.bfloat16), ("bf16", "fp32", torch.float32)]
)
def test_precision_is_the_runs_unless_set(make_model, saved, tiny_batch, run, own, dtype):
    model = make_model("bert")
    teacher = make_teacher(TeacherSettings(model=saved(model), precision=own), run, CPU)
    assert teacher(tiny_batch, tiny_batch.real).last_hidden.dtype == dtype
    weights = sum(weight.numel() for weight in model.parameters())
    buffers = 2 * 40 * 8  # position and token type ids of the embeddings
    assert teacher.bytes_per_rank == weights * dtype.itemsize + buffers


def test_a_teacher_without_a_head_is_refused(make_model, saved):
    with pytest.raises(KdError, match=r"expected a model with a masked-LM head"):
        make_teacher(TeacherSettings(model=saved(make_model("bert").base_model)), "fp32", CPU)


def test_ranks_that_do_not_divide_the_heads_are_refused_before_a_weight_is_read(make_model, saved, monkeypatch):
    folder = saved(make_model("bert"))
    (Path(folder) / "model.safetensors").write_bytes(b"never read")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(KdError, match=r"divide the teacher's num_attention_heads .* got 3 ranks and 4 .* or use zero3"):
        make_teacher(TeacherSettings(model=folder, mode="tensor_parallel"), "fp32", CPU)


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValidationError, match="replicated"):
        TeacherSettings(model="x", mode="sharded")


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_every_mode_gives_the_same_outputs_from_its_share_of_the_weights(make_model, tmp_path, run_ranks, ranks):
    folders = [tmp_path / family for family in ("bert", "distilbert", "roberta")]
    for folder in folders:
        with quiet_transformers():
            make_model(folder.name).save_pretrained(folder)
    run_ranks(ranks, "teacher_on_ranks", tmp_path, *folders)
    for rank in range(ranks):
        report = json.loads((tmp_path / f"rank-{rank}.json").read_text())
        grown, gathered = report.pop("grown", {}), report.pop("gathered", None)
        assert len(report) == 3 * 3 * 2
        for name, measured in report.items():
            assert measured["error"] < (FP32_ERROR if "fp32" in name else BF16_ERROR), name
            assert measured["same_twice"], name
            assert not measured["needs_gradients"], name
        if ranks == 1:
            continue
        for family in ("bert", "distilbert", "roberta"):
            whole, sharded, split = (report[f"{family} {mode} fp32"]["bytes"] for mode in ("replicated", "zero3", "tensor_parallel"))
            weights = report[f"{family} replicated fp32"]["bytes_whole"]
            assert weights <= whole
            assert split < 0.65 * weights  # layers in two, embeddings and head whole
            assert sharded < 0.55 * weights  # biases and norms whole
            assert report[f"{family} zero3 fp32"]["bytes_during"] < 0.7 * weights  # one module gathered at a time
        assert gathered == {"shape": [2 * 3, 24], "mine": True, "real": 2 * (20 - 3) + 3 * (24 - 3)}
        for mode, grew in grown.items():
            assert grew["teacher"] == 0, mode
            assert grew["process"] < STEPS * 20 * 2**10, mode  # one forgotten copy of the weights a pass would be 150 KiB
