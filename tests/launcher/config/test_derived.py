"""`auto` means something definite, and a length is the same number of updates whichever way it is given."""

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from data_shards.stream.stream import Stream
from kd.distributed import precision as precisions
from kd.distributed import process_group
from kd.distributed.precision import Choice
from kd.kernels import fp32_products
from kd.models.attention.attention_choice import AttentionChoice
from kd.models.encoder import Encoder
from launcher.config.derived import (
    agreed_attention,
    agreed_precision,
    chosen_attention,
    chosen_precision,
    precision_of,
    teacher_attention,
    updates_of,
)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """machine(precision): what `auto` means here."""

    def be(precision: str) -> None:
        monkeypatch.setattr(precisions, "on_this_machine", lambda: Choice(precision, "it was told so"))
        monkeypatch.setattr(process_group, "native_bf16", lambda: precision == "bf16")

    return be


@pytest.mark.parametrize("meaning", ["bf16", "fp32"])
def test_precision_auto_is_what_the_machine_gains_by(make_config, machine, meaning: str):
    machine(meaning)
    assert chosen_precision(make_config("train.precision=auto")) == Choice(meaning, "it was told so")
    assert [precision_of(make_config(f"train.precision={word}")) for word in ("fp32", "bf16")] == ["fp32", "bf16"]


def test_a_resumed_run_keeps_its_precision_on_another_machine(make_config, machine):
    auto = make_config("train.precision=auto")
    machine("fp32")
    assert agreed_precision(auto, None) == Choice("fp32", "it was told so")
    assert agreed_precision(auto, {"precision": "bf16"}) == Choice("bf16", "the run began with it")
    assert agreed_precision(make_config("train.precision=bf16"), None).precision == "bf16"
    assert agreed_precision(auto, {}).precision == "fp32"  # a checkpoint that does not name it
    machine("bf16")
    assert agreed_precision(auto, {}).precision == "bf16"


RANKS_THAT_DIFFER = """
from types import SimpleNamespace
from kd.distributed import precision, process_group
from launcher.config.derived import agreed_precision
process_group.start()
rank = process_group.rank()
precision.on_this_machine = lambda: precision.Choice(("bf16", "fp32")[rank], f"rank {rank} says so")
config = SimpleNamespace(train=SimpleNamespace(precision="auto"))
assert agreed_precision(config, None) == precision.Choice("bf16", "rank 0 says so")
process_group.leave()
"""


@pytest.mark.slow
def test_all_ranks_take_the_precision_of_rank_zero(run_ranks, tmp_path):
    script = tmp_path / "ranks_that_differ.py"
    script.write_text(RANKS_THAT_DIFFER)
    run_ranks(2, script)


def encoder(dropout: float) -> Encoder:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 10}
    return Encoder(BertForMaskedLM(BertConfig(attention_probs_dropout_prob=dropout, **sizes)))


@pytest.fixture
def student() -> Encoder:
    return encoder(0.0)


def test_attention_auto_follows_precision_window_dropout_and_processor(make_config, student, monkeypatch):
    config = make_config("data.window_tokens=32")
    for onednn, kernel in ((True, "documents"), (False, "sdpa")):
        monkeypatch.setattr(fp32_products, "gains", lambda onednn=onednn: onednn)
        assert chosen_attention(config, "fp32", student).kernel == kernel
    assert chosen_attention(config, "bf16", student).kernel == "eager"
    assert chosen_attention(make_config("data.window_tokens=257"), "bf16", student).kernel == "documents"
    drops = encoder(0.1)
    assert chosen_attention(config, "bf16", drops) == AttentionChoice("documents", "its dropout is the fastest on CPUs")
    monkeypatch.setattr(process_group, "device", lambda: torch.device("cuda"))
    assert chosen_attention(config, "bf16", drops).kernel == "sdpa"
    for kernel in ("sdpa", "eager", "documents"):
        told = chosen_attention(make_config(f"train.attention={kernel}"), "fp32", drops)
        assert told == AttentionChoice(kernel, "train.attention says so")


def test_a_resumed_run_keeps_its_attention_on_another_machine(make_config, student, monkeypatch):
    auto = make_config("data.window_tokens=32")
    monkeypatch.setattr(fp32_products, "gains", lambda: True)
    assert agreed_attention(auto, "fp32", student, None).kernel == "documents"
    assert teacher_attention(auto, None) == {"fp32": "documents", "bf16": "eager"}
    saved = {"attention": {"student": "sdpa", "teachers": {"fp32": "eager", "bf16": "sdpa"}}}
    assert agreed_attention(auto, "fp32", student, saved) == AttentionChoice("sdpa", "the run began with it")
    assert teacher_attention(auto, saved) == {"fp32": "eager", "bf16": "sdpa"}
    told = make_config("train.attention=eager")
    assert agreed_attention(told, "fp32", student, saved).kernel == "eager"


def test_a_checkpoint_that_names_no_attention_continues_with_that_of_its_version(make_config, student, monkeypatch):
    auto = make_config("data.window_tokens=32")
    monkeypatch.setattr(fp32_products, "gains", lambda: True)
    assert [agreed_attention(auto, precision, student, {}).kernel for precision in ("fp32", "bf16")] == ["sdpa", "eager"]
    assert teacher_attention(auto, {}) == {"fp32": "sdpa", "bf16": "sdpa"}


def test_the_runs_length_is_the_same_whichever_way_it_is_given(make_config, corpus):
    config = make_config()
    stream = Stream(corpus.shards, "train", config.data.stream, config.train.global_batch)
    windows = stream.windows_per_epoch
    assert updates_of(config, stream) == 12
    # 8 windows of 32 positions an update
    assert updates_of(make_config("train.updates=null", f"train.tokens={8 * 32 * 7}"), stream) == 7
    assert updates_of(make_config("train.updates=null", f"train.tokens={8 * 32 * 7 + 1}"), stream) == 8
    assert updates_of(make_config("train.updates=null", "train.tokens=1"), stream) == 1
    assert updates_of(make_config("train.updates=null", "train.epochs=1"), stream) == -(-windows // 8)
    assert updates_of(make_config("train.updates=null", "train.epochs=0.5"), stream) == -(-windows // 16)
    assert updates_of(make_config("train.updates=null", "train.epochs=3"), stream) == -(-3 * windows // 8)
