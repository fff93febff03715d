"""Weights of a model folder: read in every way that they are stored, or refused with the cause by name."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kd.errors import KdError
from kd.models.config import quiet_transformers
from kd.models.families import FAMILIES
from kd.models.loading import load_mlm, with_new_head

FAMILY_NAMES = ("bert", "distilbert", "roberta")
EVERY_FAMILY = (*FAMILY_NAMES, "xlm-roberta", "camembert", "electra", "mpnet", "deberta-v2", "deberta-v3", "modernbert", "albert")


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_saved_model_loads_with_equal_weights_in_the_dtype_asked_for_and_in_silence(make_model, saved, family, capfd):
    model = make_model(family)
    folder = saved(model)
    capfd.readouterr()
    encoder = load_mlm(folder)
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(encoder.hf.state_dict()[name], weight, rtol=0, atol=0)
    assert not encoder.training
    assert {weight.dtype for weight in load_mlm(folder, dtype=torch.bfloat16).parameters()} == {torch.bfloat16}
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("storage", ["several files", "pickled", "names of 2018"])
def test_other_ways_of_storing_the_same_weights_load_as_well(make_model, tmp_path, storage):
    model = make_model("bert")
    weights = model.state_dict()
    with quiet_transformers():
        model.save_pretrained(tmp_path, max_shard_size="50KB" if storage == "several files" else "1GB")
    if storage != "several files":
        (tmp_path / "model.safetensors").unlink()
        old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"} if "2018" in storage else {}
        stored = {"bert.pooler.dense.weight": torch.zeros(32, 32), "cls.seq_relationship.weight": torch.zeros(2, 32)}
        for name, weight in weights.items():
            for ours, theirs in old.items():
                name = name.replace(ours, theirs)
            stored[name] = weight
        torch.save(stored, tmp_path / "pytorch_model.bin")
    else:
        assert len(list(tmp_path.glob("*.safetensors"))) > 1
    loaded = load_mlm(str(tmp_path)).hf.state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in weights.items())


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_headless_encoder_is_refused_with_the_way_to_adapt_it(make_model, saved, family):
    folder = saved(make_model(family).base_model)
    with pytest.raises(KdError, match=r"expected a model with a masked-LM head.*student.new_head: true"):
        load_mlm(folder)


def test_the_weights_decide_whether_there_is_a_head_and_not_the_architectures_entry(make_model, saved):
    folder = saved(make_model("bert").base_model)
    config = Path(folder) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"architectures": ["BertForMaskedLM"]}))
    with pytest.raises(KdError, match="masked-LM head"):
        load_mlm(folder)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_new_head_keeps_the_encoder_and_depends_on_the_seed_alone(make_model, saved, family):
    base = make_model(family).base_model
    folder = saved(base)
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    first, again, other = (with_new_head(folder, seed) for seed in (7, 7, 8))
    assert torch.equal(torch.random.get_rng_state(), before)
    for name, weight in base.state_dict().items():
        torch.testing.assert_close(first.base.state_dict()[name], weight, rtol=0, atol=0)
    assert first.tied
    assert first.decoder_bias.abs().max() == 0
    dense = FAMILIES[family].head_dense
    assert torch.equal(first.weight(dense), again.weight(dense))
    assert not torch.equal(first.weight(dense), other.weight(dense))


def test_a_new_head_is_refused_where_there_is_one(make_model, saved):
    with pytest.raises(KdError, match=r"student.new_head: false"):
        with_new_head(saved(make_model("bert")), seed=1)


def test_truncated_weights_are_refused_with_the_file_named(make_model, saved):
    folder = saved(make_model("bert"))
    file = Path(folder) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(KdError, match=r"model.safetensors: expected a whole safetensors file"):
        load_mlm(folder)


def test_weights_missing_below_the_head_are_refused(make_model, saved):
    folder = saved(make_model("bert"))
    file = Path(folder) / "model.safetensors"
    weights = load_file(file)
    del weights["bert.encoder.layer.2.output.dense.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(KdError, match=r"got none for 1 of them \(bert.encoder.layer.2.output.dense.weight"):
        load_mlm(folder)


def test_a_folder_without_weights_is_refused(make_model, saved):
    folder = saved(make_model("bert"))
    (Path(folder) / "model.safetensors").unlink()
    with pytest.raises(KdError, match=r"expected weights that fit config\.json"):
        load_mlm(folder)


@pytest.mark.parametrize("change", [{"num_hidden_layers": 2}, {"vocab_size": 130}, {"num_hidden_layers": 6}])
def test_a_config_that_contradicts_its_weights_is_refused(make_model, saved, change):
    folder = saved(make_model("bert"))
    config = Path(folder) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(KdError, match=r"config\.json") as error:
        load_mlm(folder)
    assert "\n" not in str(error.value)


def pickled(folder: str, entries: dict[str, object]) -> Path:
    """The folder with its weights as pytorch_model.bin instead."""
    (Path(folder) / "model.safetensors").unlink()
    torch.save(entries, Path(folder) / "pytorch_model.bin")
    return Path(folder)


@pytest.mark.parametrize("stray", ["adapter_model.safetensors", "optimizer.safetensors"])
def test_a_safetensors_file_that_transformers_does_not_read_is_not_taken_for_the_model(make_model, saved, stray):
    model = make_model("bert")
    folder = pickled(saved(model), model.state_dict())
    save_file({"lora.weight": torch.zeros(2, 2)}, folder / stray)
    loaded = load_mlm(str(folder)).hf.state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in model.state_dict().items())


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.safetensors.index.json"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 440449768\n",
            "got a Git LFS pointer to it; fetch it: git lfs pull",
        ),
        (b"\n<!DOCTYPE html>\n<html><body>Not found</body></html>", "got a web page; download it again, from the link to the raw file"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "got a web page; download it again"),
        (b"", "got an empty file; fetch it again"),
    ],
)
def test_a_file_that_holds_no_weights_is_named_for_what_it_is(make_model, saved, name, content, said):
    folder = Path(saved(make_model("bert")))
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(content)
    with pytest.raises(KdError, match=re.escape(said)) as error:
        load_mlm(str(folder))
    assert str(error.value).startswith(f"{folder / name}: expected the file itself, ")


def test_a_file_of_an_index_that_is_missing_is_named(make_model, tmp_path):
    with quiet_transformers():
        make_model("bert").save_pretrained(tmp_path, max_shard_size="50KB")
    second = sorted(tmp_path.glob("*.safetensors"))[1]
    second.unlink()
    with pytest.raises(KdError, match=f"{second.name}: expected a file of weights, as model.safetensors.index.json lists it, got none"):
        load_mlm(str(tmp_path))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "student."])
@pytest.mark.parametrize("storage", ["safetensors", "pickle"])
@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_a_prefix_of_all_names_is_named(make_model, saved, family, storage, prefix):
    model = make_model(family)
    folder = saved(model)
    renamed = {f"{prefix}{name}": weight.clone() for name, weight in model.state_dict().items()}
    if storage == "pickle":
        pickled(folder, renamed)
    else:
        save_file(renamed, Path(folder) / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(KdError, match=f"; save them again without the prefix '{re.escape(prefix)}', or correct model_type in config.json"):
        load_mlm(folder)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_a_state_dict_inside_another_entry_is_named(make_model, saved, family, key):
    model = make_model(family)
    folder = pickled(saved(model), {key: model.state_dict(), "epoch": 3})
    with pytest.raises(KdError, match=f"expected weights by name, got the entries epoch, {key}; save the state_dict inside by itself"):
        load_mlm(str(folder))


def test_the_first_weight_of_another_shape_is_named_with_both_shapes(make_model, saved):
    model = make_model("bert")
    folder = Path(saved(model))
    weights = {name: weight.clone() for name, weight in model.state_dict().items() if "decoder" not in name}
    weights["bert.encoder.layer.1.attention.self.key.weight"] = torch.zeros(24, 32)
    weights["bert.encoder.layer.1.attention.self.value.weight"] = torch.zeros(24, 32)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    key, got = "bert.encoder.layer.1.attention.self.key.weight", "[24, 32] in the weights, and 1 more; correct config.json"
    with pytest.raises(KdError, match=re.escape(f"expected {key} of shape [32, 32], as config.json says, got {got}")):
        load_mlm(str(folder))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(make_model, saved, value):
    model = make_model("bert")
    with torch.no_grad():
        model.bert.encoder.layer[2].output.dense.weight[3, 4] = value
    with pytest.raises(KdError, match=r"expected finite weights, got NaN or infinity in bert.encoder.layer.2.output.dense.weight; use"):
        load_mlm(saved(model))


@pytest.mark.parametrize("kept", ["bias", "decoder.bias"])
@pytest.mark.parametrize(
    ("family", "head"), [("bert", "cls.predictions"), ("roberta", "lm_head"), ("mpnet", "lm_head"), ("albert", "predictions")]
)
def test_an_untied_head_whose_bias_is_stored_once_loads_under_either_name(make_model, saved, family, head, kept):
    model = make_model(family, tie_word_embeddings=False)
    folder = saved(model)
    bias = torch.linspace(-1, 1, 120)
    weights = {name: weight.clone() for name, weight in model.state_dict().items() if name not in (f"{head}.bias", f"{head}.decoder.bias")}
    save_file(weights | {f"{head}.{kept}": bias}, Path(folder) / "model.safetensors", metadata={"format": "pt"})
    encoder = load_mlm(folder)
    assert torch.equal(encoder.decoder_bias, bias)
    assert torch.equal(encoder.hf.get_parameter(f"{head}.bias"), bias)
    assert torch.equal(encoder.decoder_weight, model.get_parameter(f"{head}.decoder.weight"))
