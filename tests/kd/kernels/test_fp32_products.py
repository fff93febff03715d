"""fp32 products through oneDNN are those of fp32, and are taken on the processors that gain alone."""

import pytest
import torch
from torch.nn.functional import linear

from kd.kernels import fp32_products

AMD = {"cpu_name": "AMD EPYC", "avx512_f": True, "amx_tile": False, "amx_bf16": False}


@pytest.fixture(autouse=True)
def setting():
    """The setting of this process is the same after a test."""
    before = torch.backends.mkldnn.matmul.fp32_precision
    yield
    torch.backends.mkldnn.matmul.fp32_precision = before


@pytest.mark.parametrize(
    ("change", "gains"),
    [
        ({}, True),
        ({"amx_bf16": True}, False),  # oneDNN would round to bf16
        ({"amx_tile": True}, False),
        ({"avx512_f": False}, False),
        ({"cpu_name": "Intel(R) Xeon(R) Platinum 8488C"}, False),
        ({"cpu_name": "Neoverse-V2"}, False),
    ],
)
def test_only_amd_processors_with_avx_512_and_without_amx_gain(change, gains):
    assert fp32_products.gains(AMD | change) is gains


def test_the_setting_is_made_only_where_it_gains(monkeypatch):
    for there, chosen in ((AMD, True), (AMD | {"amx_bf16": True}, False)):
        torch.backends.mkldnn.matmul.fp32_precision = "none"
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda there=there: there)
        monkeypatch.setattr(fp32_products, "_exact", lambda: True)
        assert fp32_products.choose() is chosen
        assert torch.backends.mkldnn.matmul.fp32_precision == ("bf16" if chosen else "none")


def test_products_that_round_to_bf16_are_noticed_and_the_setting_is_taken_back(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: AMD)
    torch.backends.mkldnn.matmul.fp32_precision = "none"
    plain = torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda x, y: plain(x.bfloat16().to(x.dtype), y) if x.dtype == torch.float32 else plain(x, y))
    assert not fp32_products.choose()
    assert torch.backends.mkldnn.matmul.fp32_precision == "none"


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize(("rows", "inner", "columns"), [(1, 1, 1), (3, 5, 7), (2048, 384, 384), (17, 1536, 384), (48, 384, 1001)])
def test_values_and_gradients_are_those_of_fp32(rows, inner, columns, scale):
    """Against float64, for a linear map and its three gradients. Without oneDNN it is the same test of MKL."""
    fp32_products.choose()
    torch.manual_seed(0)
    x, weight, bias = torch.randn(rows, inner) * scale, torch.randn(columns, inner), torch.randn(columns)
    incoming = torch.randn(rows, columns)
    results = []
    for dtype in (torch.float32, torch.float64):
        leaves = [value.detach().to(dtype, copy=True).requires_grad_() for value in (x, weight, bias)]
        output = linear(*leaves)
        output.backward(incoming.to(dtype))
        results.append([output.detach(), *(leaf.grad for leaf in leaves)])
    for fast, exact in zip(*results, strict=True):
        assert float((fast - exact).abs().max()) <= 2e-6 * float(exact.abs().max())
