"""`stillhouse plan --calibrate`: rates of this machine that the planner reads back."""

import argparse

import pytest
import torch

from kd.distributed import process_group
from launcher.benchmarks import calibrate, engine_costs, rates
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
    monkeypatch.setattr(calibrate, "engine_costs", lambda where: {})


def test_the_rates_are_positive_and_survive_the_file(tmp_path):
    measured = calibrate.measure_rates(CPU)
    assert set(measured.gemm) == {"fp32", "bf16"}
    assert set(measured.attention) == {f"{one} {kernel}" for one in ("fp32", "bf16") for kernel in ("sdpa", "eager", "documents")}
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
def test_two_ranks_time_their_messages_and_the_layers_of_split_teachers(fork_server, monkeypatch: pytest.MonkeyPatch):
    fork_server.fork_jobs(monkeypatch)
    ranks = calibrate.measure_ranks()
    assert 0.2 < ranks.pop("libraries_gb") < 2
    measured = Measured.model_validate(BARE | ranks)
    for seconds, rate in (measured.all_reduce, measured.all_reduce_bf16):
        assert 0 < seconds < 1
        assert 0.01 < rate < 1000
    assert measured.teacher_layer_us["zero3"] > measured.teacher_layer_us["tensor_parallel"] > 0  # a gather for each weight; two sums
    assert 1 <= measured.together < 10


@pytest.mark.slow
def test_the_engines_cost_of_a_micro_batch_grows_with_the_stage(monkeypatch: pytest.MonkeyPatch):
    process_group.start()
    monkeypatch.setattr(engine_costs, "SIZES", ((64, 4000),))
    monkeypatch.setattr(engine_costs, "UPDATES", 1)
    costs = {stage: engine_costs.engine_cost("bf16", stage, CPU) for stage in (1, 3)}
    assert set(costs[1].weight_ns) == {64 * 4000}
    assert costs[3].layer_us > costs[1].layer_us > 0  # at stage 3 hooks gather each weight


BARE = {
    "threads": 1,
    "gemm": {"fp32": {256: 0.1}},
    "attention": {"fp32 sdpa": {128: (0.3, 0.05, 0.5, 0.1)}},
    "elementwise": {"fp32": (25.0, 40.0)},
    "head": {"fp32": (3.0, 0.1, 1.0)},
    "optimizer": 1.2,
}
"""What a device file of an earlier version has."""
