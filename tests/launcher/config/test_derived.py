"""`auto` means something definite, and a length is the same number of updates whichever way it is given."""

import pytest
import torch

from data_shards.stream.stream import Stream
from kd.distributed import precision as precisions
from kd.distributed import process_group
from kd.distributed.precision import Choice
from launcher.config.derived import agreed_precision, attention_of, chosen_precision, precision_of, updates_of


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


@pytest.mark.parametrize(
    ("device", "precision", "window_tokens", "meaning"),
    [
        ("cpu", "bf16", 32, "eager"),
        ("cpu", "bf16", 256, "eager"),
        ("cpu", "bf16", 257, "sdpa"),
        ("cpu", "fp32", 32, "sdpa"),
        ("cuda", "bf16", 32, "sdpa"),
    ],
)
def test_attention_auto_is_eager_only_where_the_fused_one_is_slow(
    make_config, monkeypatch: pytest.MonkeyPatch, device: str, precision: str, window_tokens: int, meaning: str
):
    monkeypatch.setattr(process_group, "device", lambda: torch.device(device))
    assert attention_of(make_config(f"data.window_tokens={window_tokens}"), precision) == meaning
    assert attention_of(make_config("train.attention=sdpa"), precision) == "sdpa"
    assert attention_of(make_config("train.attention=eager"), precision) == "eager"


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
