"""A config.json that cannot be used is refused in one line, before a weight is read."""

import json
import re
from pathlib import Path

import pytest
from transformers import GPT2Config

from kd.errors import KdError
from kd.models.config import read_config


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


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 600\n",
            "config.json: expected the file itself, got a Git LFS pointer",
        ),
        (b"<!DOCTYPE html><html>Sign in</html>", "config.json: expected the file itself, got a web page; download it again"),
        (b"", "config.json: expected the file itself, got an empty file; fetch it again"),
        (b"[]", "expected settings by name in config.json, got list; fetch the model again"),
        (b"[" * 100_000 + b"]" * 100_000, "expected a readable config.json, got "),
    ],
)
def test_a_file_that_is_no_configuration_is_named_for_what_it_is(tmp_path, content, said):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(KdError, match=re.escape(said)) as error:
        read_config(str(tmp_path))
    assert "\n" not in str(error.value)


def test_a_configuration_without_model_type_is_refused_also_in_a_folder_named_like_a_family(make_model, saved, tmp_path):
    folder = Path(saved(make_model("roberta"))).rename(tmp_path / "my-bert-base")
    config = json.loads((folder / "config.json").read_text())
    del config["model_type"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(KdError, match=r"expected model_type in config.json to name a known family \(bert, .*\), got none; add it$"):
        read_config(str(folder))


def test_a_number_of_layers_that_no_memory_holds_is_refused_before_a_model_is_made(make_model, saved):
    config = Path(saved(make_model("bert"))) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_hidden_layers": 10_000_000}))
    with pytest.raises(KdError, match=r"expected num_hidden_layers of at most 10,000, got 10,000,000; correct config\.json"):
        read_config(str(config.parent))
