import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, GPT2Config

from kd.batch import IGNORED, Batch
from kd.errors import KdError
from kd.models.encoder import Encoder, load_mlm, quiet_transformers, read_config, untrained, with_new_head
from kd.models.families import FAMILIES, LAYER_PARTS

FAMILY_NAMES = ("bert", "distilbert", "roberta")
FP32 = {"rtol": 1e-5, "atol": 1e-5}  # the same products in another order (packed or padded rows)


def one_document_rows(ids: list[list[int]], padding: int, columns: int) -> tuple[Batch, torch.Tensor]:
    """A batch of one document a row, and Hugging Face's own 2D mask for it."""
    shape = (len(ids), columns)
    input_ids, positions = torch.full(shape, padding), torch.arange(columns).expand(shape).clone()
    mask = torch.zeros(shape, dtype=torch.int64)
    for row, document in enumerate(ids):
        input_ids[row, : len(document)] = torch.tensor(document)
        mask[row, : len(document)] = 1
    batch = Batch(input_ids, torch.full(shape, IGNORED), positions, mask.clone(), torch.arange(len(ids)))
    return batch, mask


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_logits_are_those_of_the_hugging_face_model_on_padded_rows(make_model, family, attention):
    model = make_model(family)
    model.set_attn_implementation(attention)
    encoder = Encoder(model)
    documents = [[5, 17, 99, 4, 31], [8, 8, 60], [11, 12, 13, 14, 15, 16, 17, 18, 19]]
    batch, mask = one_document_rows(documents, padding=model.config.pad_token_id, columns=11)
    with torch.no_grad():
        expected = model(input_ids=batch.input_ids, attention_mask=mask).logits
        got = encoder.logits(encoder(batch).last_hidden)
    assert got.shape == (3, 11, 120)
    torch.testing.assert_close(got[batch.real], expected[batch.real], **FP32)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_packed_row_gives_what_its_documents_give_alone(make_model, tiny_batch, family):
    model = make_model(family)
    encoder = Encoder(model)
    with torch.no_grad():
        packed = encoder.logits(encoder(tiny_batch).last_hidden)
        for row in range(2):
            for segment in range(1, int(tiny_batch.segments[row].max()) + 1):
                inside = tiny_batch.segments[row] == segment
                ids = tiny_batch.input_ids[row, inside][None]
                alone = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
                torch.testing.assert_close(packed[row, inside], alone, **FP32)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_padding_changes_no_real_position(make_model, tiny_batch, family):
    encoder = Encoder(make_model(family))
    other = tiny_batch.input_ids.where(tiny_batch.real, torch.tensor(77))
    with torch.no_grad():
        plain = encoder(tiny_batch).last_hidden
        changed = encoder(Batch(other, *[getattr(tiny_batch, n) for n in ("labels", "positions", "segments", "windows")])).last_hidden
    assert torch.isfinite(plain).all()
    torch.testing.assert_close(changed[tiny_batch.real], plain[tiny_batch.real], rtol=0, atol=0)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_sizes_parts_and_tying_are_read_from_the_structure(make_model, family):
    encoder = Encoder(make_model(family, layers=5))
    assert (encoder.layers, encoder.width, encoder.heads) == (5, 32, 4)
    assert (encoder.vocabulary, encoder.max_positions) == (120, 40)
    assert len(encoder.layer_modules) == 5
    assert encoder.tied
    assert encoder.decoder_weight is encoder.hf.get_input_embeddings().weight
    assert encoder.decoder_bias.shape == (120,)
    sizes = [tuple(encoder.layer_part(4, name).weight.shape) for name in LAYER_PARTS]
    assert sizes == [(32, 32)] * 4 + [(32,), (64, 32), (32, 64), (32,)]


def test_the_last_usable_position_of_roberta_is_accepted_and_no_further_one(make_model):
    encoder = Encoder(make_model("roberta"))
    ids = torch.full((1, 41), 9)
    batch = Batch(ids, ids, torch.arange(41)[None], torch.ones_like(ids), torch.zeros(1))
    with pytest.raises((IndexError, RuntimeError)):
        encoder(batch)
    short = Batch(ids[:, :40], ids[:, :40], torch.arange(40)[None], torch.ones_like(ids[:, :40]), torch.zeros(1))
    assert encoder(short).last_hidden.shape == (1, 40, 32)


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


def test_a_missing_folder_and_a_folder_without_a_model_are_named(tmp_path):
    with pytest.raises(KdError, match=r"/nowhere: expected a model folder, got nothing there"):
        read_config(str(tmp_path / "nowhere"))
    with pytest.raises(KdError, match=r"config.json, got none"):
        read_config(str(tmp_path))


def test_an_unknown_family_is_refused_with_the_list_of_known_ones(tmp_path):
    GPT2Config().save_pretrained(tmp_path)
    with pytest.raises(KdError, match=r"known family \(bert, distilbert, .*modernbert, albert\), got 'gpt2'"):
        read_config(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "no-such-thing"}, "known family"),
        ({"model_type": None}, "known family"),
        ({"vocab_size": -1}, "expected vocab_size to be at least 1, got -1"),
        ({"num_hidden_layers": 0}, "expected num_hidden_layers to be at least 1, got 0"),
        ({"num_hidden_layers": 10_000_000}, "expected num_hidden_layers to be at most 1,000, got 10,000,000"),
        ({"hidden_size": 1_000_001}, "expected hidden_size to be at most 1,000,000, got 1,000,001"),
        ({"vocab_size": 10_000_001}, "expected vocab_size to be at most 10,000,000, got 10,000,001"),
        ({"hidden_act": "nope"}, "expected hidden_act to be a function that transformers knows, got nope"),
        ({"num_attention_heads": 5}, "num_attention_heads to divide hidden_size = 32, got 5"),
        ({"num_attention_heads": 0}, "got 0 heads"),
        ({"is_decoder": True}, "expected an encoder"),
        ({"position_embedding_type": "relative_key"}, "expected absolute positions"),
        ({"hidden_size": "wide"}, "readable config.json"),
    ],
)
def test_a_config_that_cannot_be_used_is_refused_in_one_line_before_its_weights_are_read(make_model, saved, change, said):
    folder = saved(make_model("bert"))
    config = Path(folder) / "config.json"
    config.write_text(json.dumps({k: v for k, v in (json.loads(config.read_text()) | change).items() if v is not None}))
    (Path(folder) / "model.safetensors").write_bytes(b"never read")
    with pytest.raises(KdError, match=said) as error:
        read_config(folder)
    assert "\n" not in str(error.value)
    assert folder in str(error.value)


def test_a_config_that_is_not_json_is_refused(make_model, saved):
    folder = saved(make_model("bert"))
    (Path(folder) / "config.json").write_text("{")
    with pytest.raises(KdError, match=r"readable config\.json"):
        read_config(folder)


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


def test_every_path_of_every_family_exists_in_a_model_built_from_its_default_config():
    for name in FAMILIES:
        with torch.device("meta"):
            encoder = untrained(AutoConfig.for_model(name))
        family = encoder.family
        assert encoder.decoder_bias.shape == (encoder.vocabulary,)
        assert encoder.max_positions > 0
        for path in (family.embedding_norm, family.head_norm, family.position_embeddings, family.token_type_embeddings):
            assert path is None or encoder.weight(path) is not None
