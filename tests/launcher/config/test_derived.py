"""`auto` means something definite, and a length is the same number of updates whichever way it is given."""

import pytest
import torch

from data_shards.stream.stream import Stream
from kd.distributed import process_group
from launcher.config.derived import attention_of, precision_of, updates_of


@pytest.mark.parametrize(("native", "meaning"), [(True, "bf16"), (False, "fp32")])
def test_precision_auto_is_bf16_where_the_machine_multiplies_it(make_config, monkeypatch: pytest.MonkeyPatch, native: bool, meaning: str):
    monkeypatch.setattr(process_group, "native_bf16", lambda: native)
    assert precision_of(make_config("train.precision=auto")) == meaning
    assert [precision_of(make_config(f"train.precision={word}")) for word in ("fp32", "bf16")] == ["fp32", "bf16"]


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
