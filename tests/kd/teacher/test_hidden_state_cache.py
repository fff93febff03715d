"""A cached teacher is the replicated one, exactly; a cache that is not whole, or another's, is one line."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kd.batch import IGNORED
from kd.copies import positions_of
from kd.errors import KdError
from kd.models.encoder import Encoder
from kd.models.loading import load_mlm, weights_digest
from kd.models.states import EncoderShape, StateKey
from kd.objective.objective import Objective
from kd.teacher.cached import check_cache
from kd.teacher.hidden_state_cache import CacheHeader, CacheWriter, StateCache, kept, read_header, row_keys
from kd.teacher.settings import TeacherSettings
from kd.teacher.teachers import check_provides, make_teacher
from kd.terms import HiddenCosine, HiddenMSE, LogitMSE, MaskedLM, SoftTargets

CPU = torch.device("cpu")


def fill(folder, model, batch, positions="all", precision="fp32", parts=1):
    """A cache of one batch's rows, in so many files."""
    folder.mkdir(exist_ok=True)
    teacher = make_teacher(TeacherSettings(model=model), precision, CPU)
    encoder = load_mlm(model, dtype={"fp32": torch.float32, "bf16": torch.bfloat16}[precision])
    last = teacher(batch, torch.zeros_like(batch.real)).last_hidden
    files = {}
    at = kept(batch, positions)
    for segment, rows in enumerate(np.array_split(np.arange(len(last)), parts)):
        writer = CacheWriter(folder, 0)
        writer.add(row_keys(batch)[rows], [last[row][at[row]] for row in rows.tolist()])
        files |= writer.flush(segment)
    header = CacheHeader(weights_digest(encoder), encoder.family.name, encoder.layers, encoder.width, precision, positions, files=files)
    header.write(folder)
    return TeacherSettings(model=model, mode="cached", cache=str(folder))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("family", ["bert", "electra", "modernbert", "albert", "deberta-v3"])
def test_a_cached_teacher_gives_what_the_replicated_one_gives(make_model, saved, tiny_batch, tmp_path, family, precision):
    model = saved(make_model(family))
    cached = make_teacher(fill(tmp_path / "cache", model, tiny_batch, precision=precision, parts=2), precision, CPU)
    whole = make_teacher(TeacherSettings(model=model), precision, CPU)
    state = StateKey("hidden", 3)
    found, expected = (teacher(tiny_batch, tiny_batch.predicted, frozenset({state})) for teacher in (cached, whole))
    real = tiny_batch.real
    assert torch.equal(found.last_hidden[real], expected.last_hidden[real])
    assert torch.equal(found.states[state][real], expected.states[state][real])
    assert torch.equal(found.transformed, expected.transformed)
    with cached.decoder() as (weight, bias), whole.decoder() as (its_weight, its_bias):
        assert torch.equal(weight, its_weight)
        assert torch.equal(bias, its_bias)
    assert (cached.layers, cached.width, cached.shape) == (whole.layers, whole.width, whole.shape)
    assert cached.bytes_per_rank < whole.bytes_per_rank


def test_a_cached_teacher_asks_the_device_of_its_head_nothing(make_model, saved, tiny_batch, tmp_path):
    """The device is torch's meta, which has no values: any question to it raises. Rows are looked up by the batch on the host."""
    cached = make_teacher(fill(tmp_path / "cache", saved(make_model("bert")), tiny_batch), "fp32", CPU)
    meta = torch.device("meta")
    cached.module.to(meta)
    outputs = cached(tiny_batch.to(meta), positions_of(tiny_batch.real, meta))
    assert (outputs.last_hidden.device, outputs.transformed.device) == (meta, meta)
    assert len(outputs.transformed) == int(tiny_batch.real.sum())


def test_any_order_batch_and_width_of_padding_finds_the_same_rows(make_model, saved, tiny_batch, tmp_path):
    model = saved(make_model("bert"))
    cached = make_teacher(fill(tmp_path / "cache", model, tiny_batch), "fp32", CPU)
    expected = cached(tiny_batch, tiny_batch.real).last_hidden
    names = ("input_ids", "labels", "positions", "segments")
    back = torch.arange(len(expected) - 1, -1, -1)
    wider = {name: torch.nn.functional.pad(getattr(tiny_batch, name)[back], (0, 7), value=IGNORED * (name == "labels")) for name in names}
    found = cached(
        replace(tiny_batch, **wider, windows=tiny_batch.windows[back]), torch.zeros_like(wider["segments"], dtype=torch.bool)
    ).last_hidden
    real = tiny_batch.real[back]
    assert torch.equal(found[:, :-7][real], expected[back][real])
    assert not found[:, -7:].any()


def test_a_cache_of_masked_positions_holds_those_alone(make_model, saved, tiny_batch, tmp_path):
    model = saved(make_model("bert"))
    everything = make_teacher(fill(tmp_path / "all", model, tiny_batch), "fp32", CPU)
    few = make_teacher(fill(tmp_path / "masked", model, tiny_batch, "masked"), "fp32", CPU)
    found, expected = (teacher(tiny_batch, tiny_batch.predicted) for teacher in (few, everything))
    assert torch.equal(found.transformed, expected.transformed)
    assert few.cache.header.tokens == int(tiny_batch.predicted.sum())
    assert not found.last_hidden[~tiny_batch.predicted].any()


def test_a_row_that_is_masked_otherwise_is_not_there(make_model, saved, tiny_batch, tmp_path):
    cached = make_teacher(fill(tmp_path / "cache", saved(make_model("bert")), tiny_batch), "fp32", CPU)
    other = tiny_batch.input_ids.clone()
    other[1, 2] += 1
    with pytest.raises(
        KdError, match=rf"expected the hidden states of window {int(tiny_batch.windows[1])} as masked now, got none; fill it"
    ):
        cached(replace(tiny_batch, input_ids=other), tiny_batch.real)


def test_a_row_of_padding_alone_needs_no_states(make_model, saved, tiny_batch, tmp_path):
    cached = make_teacher(fill(tmp_path / "cache", saved(make_model("bert")), tiny_batch), "fp32", CPU)
    names = {"input_ids": 0, "labels": IGNORED, "positions": 0, "segments": 0}
    gone = replace(tiny_batch, **{name: getattr(tiny_batch, name).clone() for name in names})
    for name, empty in names.items():
        getattr(gone, name)[0] = empty
    assert not cached(gone, gone.real).last_hidden[0].any()


@pytest.mark.parametrize(
    ("terms", "positions", "message"),
    [
        ([SoftTargets(), HiddenCosine(), LogitMSE(), MaskedLM()], "all", None),
        ([SoftTargets(positions="masked"), MaskedLM(), HiddenCosine(positions="masked")], "masked", None),
        ([HiddenMSE(layer_map=[{"student": 3, "teacher": [3]}])], "all", None),
        ([HiddenMSE()], "all", r"objective\.0 \(hidden_mse\): expected a teacher that gives hidden, got a cached one, which gives"),
        ([MaskedLM(), SoftTargets()], "masked", r"objective\.1 \(soft_targets\): expected a cache of all positions, got one of masked"),
        ([HiddenCosine(positions="first")], "masked", r"objective\.0 \(cosine\): expected a cache of all positions"),
    ],
)
def test_terms_that_a_cache_cannot_teach_are_refused(terms, positions, message):
    shape = EncoderShape(layers=4, width=32, heads=4)
    objective = Objective(terms, 8).for_encoders(shape, shape)
    if message is None:
        check_provides(objective, 0, frozenset({"logits", "last_hidden"}), positions)
        return
    with pytest.raises(KdError, match=message):
        check_provides(objective, 0, frozenset({"logits", "last_hidden"}), positions)


def test_the_states_of_another_model_are_refused(make_model, saved, tiny_batch, tmp_path):
    settings = fill(tmp_path / "cache", saved(make_model("bert")), tiny_batch)
    other = make_model("bert", seed=2)
    with torch.no_grad():
        other.bert.embeddings.word_embeddings.weight[7, 3] += 1e-3
    with pytest.raises(KdError, match=r"expected states of this teacher .* got those of another"):
        make_teacher(settings.model_copy(update={"model": saved(other)}), "fp32", CPU)
    for family, changes, message in (
        ("roberta", {}, "expected states of family roberta, got bert"),
        ("bert", {"layers": 5}, "expected states of layers 5, got 4"),
        ("bert", {"hidden_size": 16}, "expected states of width 16, got 32"),
    ):
        with pytest.raises(KdError, match=message):
            check_cache("teacher", settings, Encoder(make_model(family, **changes)), "fp32")
    with pytest.raises(KdError, match=r"expected states of precision bf16, got fp32; set teacher.precision: fp32"):
        check_cache("teacher", settings, Encoder(make_model("bert")), "bf16")


def damaged(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
    elif how == "cut":
        path.write_bytes(data[:-5])
    elif how == "states":  # safetensors sorts by dtype: the states come last or first, the tables are the int64 ones
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        start = 8 + int.from_bytes(data[:8], "little") + header["states"]["data_offsets"][0]
        data[start + 11] ^= 4
        path.write_bytes(data)
    elif how == "tables":
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        start = 8 + int.from_bytes(data[:8], "little") + header["starts"]["data_offsets"][0]
        data[start + 8] ^= 1
        path.write_bytes(data)
    else:
        data[int(how)] ^= 1
        path.write_bytes(data)


@pytest.mark.parametrize("how", ["missing", "cut", "states", "tables", "3", "20"])
def test_a_file_that_is_not_as_it_was_written_is_named(make_model, saved, tiny_batch, tmp_path, how):
    settings = fill(tmp_path / "cache", saved(make_model("bert")), tiny_batch)
    damaged(tmp_path / "cache" / "states-000000-00000.safetensors", how)
    with pytest.raises(KdError, match=r"states-000000-00000.safetensors: expected .*, got .*; bring the file back, or fill another folder"):
        make_teacher(settings, "fp32", CPU)(tiny_batch, tiny_batch.real)


def test_a_header_with_any_flipped_byte_is_refused(make_model, saved, tiny_batch, tmp_path):
    fill(tmp_path / "cache", saved(make_model("bert")), tiny_batch)
    path = tmp_path / "cache" / "cache.json"
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(KdError, match=r"cache.json: expected .* got "):
            read_header(tmp_path / "cache")
    path.unlink()
    with pytest.raises(KdError, match="expected a cache of hidden states, got none; fill it: stillhouse cache"):
        StateCache(tmp_path / "cache")


def test_any_flipped_byte_of_the_states_is_told_or_harmless(make_model, saved, tiny_batch, tmp_path):
    cached = make_teacher(fill(tmp_path / "cache", saved(make_model("bert")), tiny_batch), "fp32", CPU)
    path = tmp_path / "cache" / "states-000000-00000.safetensors"
    expected, whole = cached(tiny_batch, tiny_batch.real).last_hidden, path.read_bytes()
    messages = []
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :])
        try:
            cached.cache = StateCache(tmp_path / "cache")
            assert torch.equal(cached(tiny_batch, tiny_batch.real).last_hidden, expected), place
        except KdError as error:
            messages.append(str(error))
    assert len(messages) > 0.9 * len(whole) / 7
    assert all(str(path) in message for message in messages)
