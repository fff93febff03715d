"""`stillhouse plan --calibrate`: rates of this machine that the planner reads back."""

import argparse

import pytest
import torch

from launcher.benchmarks import calibrate, rates
from launcher.errors import LaunchError
from launcher.planning.devices.devices import Measured, device_of, device_text

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch):
    """Two repetitions on few tokens: the tests are about form, not about speed."""
    monkeypatch.setattr(rates, "REPETITIONS", 1)
    monkeypatch.setattr(rates, "ENOUGH_SECONDS", 0.0)
    monkeypatch.setattr(rates, "TOKENS", 512)
    monkeypatch.setattr(rates, "VOCABULARY", 500)
    monkeypatch.setattr(rates, "STEP_WEIGHTS", 10_000)
    monkeypatch.setattr(calibrate, "WIDTHS", (64, 128))


def test_the_rates_are_positive_and_survive_the_file(tmp_path):
    measured = calibrate.measure_rates(CPU)
    assert set(measured.gemm) == {"fp32", "bf16"}
    assert set(measured.attention) == {"fp32 sdpa", "fp32 eager", "bf16 sdpa", "bf16 eager"}
    assert all(rate > 0 for by_width in measured.gemm.values() for rate in by_width.values())
    assert measured.threads == torch.get_num_threads()
    device = device_of("cpu").model_copy(update={"measured": measured})
    path = tmp_path / "device.yaml"
    path.write_text(device_text(device))
    again = device_of(str(path))
    assert isinstance(again.measured, Measured)
    assert again == device


def test_a_product_costs_what_its_flops_say(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rates, "typical", lambda action, where: 0.5)
    assert rates.gemm_rate("fp32", 64, CPU) == pytest.approx(2 * 512 * 64 * 256 / 0.5 / 1e12)
    assert rates.copy_rate(CPU, 1 << 12) == pytest.approx(2 * 4096 / 0.5 / 1e9)
    assert rates.optimizer_cost(CPU) == pytest.approx(1e9 * 0.5 / 10_000)


def test_a_file_that_cannot_be_written_is_refused_before_a_minute_is_spent(tmp_path):
    with pytest.raises(LaunchError, match=r"--out .*: expected the name of a file in a folder that exists, got none; correct it"):
        calibrate.run(argparse.Namespace(out=str(tmp_path / "no" / "such" / "device.yaml")))


@pytest.mark.slow
def test_two_ranks_time_their_messages():
    all_reduce, libraries = calibrate.measure_ranks()
    assert all_reduce is not None
    assert 0 < all_reduce[0] < 1
    assert 0.01 < all_reduce[1] < 1000
    assert 0.2 < libraries < 2
