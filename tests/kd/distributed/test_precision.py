"""`train.precision: auto` by the instruction sets of a processor, and by a measurement where they do not decide."""

import pytest
import torch

from kd.distributed import precision
from kd.distributed.precision import allowed, measured_gain, of_processor


def never() -> float:
    raise AssertionError("nothing was to be measured")


@pytest.mark.parametrize(
    ("features", "gain", "meaning", "word"),
    [
        ({"amx_bf16", "avx512_bf16"}, never, "bf16", "has amx_bf16"),
        ({"amx_bf16"}, never, "bf16", "has amx_bf16"),
        (set(), never, "fp32", "none of amx_bf16, avx512_bf16, arm_bf16"),
        ({"avx2", "avx512_f", "avx512_vnni"}, never, "fp32", "none of"),
        ({"avx512_bf16"}, lambda: 3.64, "bf16", "has avx512_bf16 and no amx_bf16; measured, bf16 is 3.6 times as fast"),
        ({"avx512_bf16"}, lambda: 0.81, "fp32", "bf16 is 0.81 times as fast"),
        ({"avx512_bf16"}, lambda: 1.24, "fp32", "1.25 are needed"),
        ({"avx512_bf16"}, lambda: 1.25, "bf16", "1.25 are needed"),
        ({"arm_bf16"}, lambda: 2.0, "bf16", "has arm_bf16"),
    ],
)
def test_the_instruction_sets_decide_and_where_they_do_not_a_measurement(features, gain, meaning, word):
    choice = of_processor(frozenset(features), gain)
    assert choice.precision == meaning
    assert word in choice.reason


@pytest.mark.parametrize(
    ("limit", "left"),
    [
        (None, {"amx_bf16", "avx512_bf16"}),
        ("ALL", {"amx_bf16", "avx512_bf16"}),
        ("avx512_core_amx", {"amx_bf16", "avx512_bf16"}),
        ("AVX512_CORE_FP16", {"avx512_bf16"}),
        ("AVX512_CORE_BF16", {"avx512_bf16"}),
        ("AVX512_CORE_VNNI", set()),
        ("AVX2", set()),
    ],
)
def test_an_instruction_set_that_onednn_may_not_use_does_not_count(limit, left):
    environment = {} if limit is None else {"ONEDNN_MAX_CPU_ISA": limit}
    assert allowed(frozenset({"amx_bf16", "avx512_bf16"}), environment) == left


def test_the_measurement_leaves_the_random_state_alone_and_the_choice_is_made_once(monkeypatch):
    before = torch.get_rng_state()
    assert measured_gain() > 0.01
    assert torch.equal(before, torch.get_rng_state())
    calls = []
    monkeypatch.setattr(precision, "of_processor", lambda *_: calls.append(1))
    precision.on_this_machine.cache_clear()
    assert precision.on_this_machine() is precision.on_this_machine()
    precision.on_this_machine.cache_clear()
    assert calls == [1]


def test_fp32_products_of_a_gpu_are_tf32_unless_that_is_off():
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    before = [backend.fp32_precision for backend in backends]
    try:
        torch.set_float32_matmul_precision("highest")
        gpu = torch.device("cuda", 0)
        assert precision.choose_gpu_products("fp32", True, torch.device("cpu")) is None
        assert torch.get_float32_matmul_precision() == "highest"
        for run, tf32, products in (("fp32", True, "tf32"), ("fp32", False, "ieee"), ("bf16", True, "ieee")):
            assert precision.choose_gpu_products(run, tf32, gpu) == products
            assert torch.backends.cuda.matmul.fp32_precision == products
            assert torch.get_float32_matmul_precision() == ("high" if products == "tf32" else "highest")
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.fp32_precision = value
