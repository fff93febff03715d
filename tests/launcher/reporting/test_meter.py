"""Means since the last line, which survive a checkpoint to the bit."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from kd.training.update_report import UpdateReport
from launcher.reporting import meter as module
from launcher.reporting.meter import Meter, peak_memory_gb


def report(update: int, loss: float, applied: bool = True, tokens: int = 100, norm: float = 1.0, **terms: float) -> UpdateReport:
    return UpdateReport(
        update=update,
        loss=loss,
        terms=terms,
        gradient_norm=norm,
        learning_rate=1e-3,
        applied=applied,
        tokens=tokens,
        predicted=15,
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """[seconds]: what time it is; starts at 1000."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    return now


def test_a_line_holds_the_means_over_its_updates():
    meter = Meter()
    meter.add(report(1, 4.0, norm=1.0, mlm=3.0, soft_targets=1.0))
    meter.add(report(2, 2.0, norm=4.0, mlm=1.0, soft_targets=1.5))
    values = meter.take(0.0)
    assert {key: values[key] for key in ("loss", "gradient_norm", "loss/mlm", "loss/soft_targets")} == {
        "loss": 3.0,
        "gradient_norm": 2.5,
        "loss/mlm": 2.0,
        "loss/soft_targets": 1.25,
    }
    assert "applied" not in values


def test_a_skipped_update_is_in_no_mean():
    meter = Meter()
    meter.add(report(1, 4.0, norm=2.0))
    meter.add(report(2, float("nan"), applied=False, norm=float("inf"), mlm=float("nan")))
    meter.add(report(3, 5.0, norm=3.0))
    values = meter.take(0.0)
    assert (values["loss"], values["gradient_norm"]) == (4.5, 2.5)
    assert "loss/mlm" not in values


def test_a_line_of_skipped_updates_only_has_no_loss_but_its_rates(clock: list[float]):
    meter = Meter()
    meter.add(report(1, float("nan"), applied=False, tokens=300))
    clock[0] += 2.0
    assert meter.take(0.5) == {"tokens_per_second": 150.0, "data_wait_share": 0.25, "seconds_per_update": 2.0}


def test_rates_count_learning_time_alone(clock: list[float]):
    meter = Meter()
    for update in (1, 2, 3, 4):
        meter.add(report(update, 1.0, tokens=250))
    clock[0] += 15.0
    meter.pause(4.0)
    meter.pause(1.0)
    values = meter.take(waited_seconds=2.0)
    assert (values["tokens_per_second"], values["data_wait_share"], values["seconds_per_update"]) == (100.0, 0.2, 2.5)


def test_taking_starts_over(clock: list[float]):
    meter = Meter()
    meter.add(report(1, 9.0, tokens=1000))
    clock[0] += 1.0
    meter.pause(0.5)
    meter.take(0.0)
    meter.add(report(2, 1.0, tokens=10))
    clock[0] += 5.0
    values = meter.take(0.0)
    assert (values["loss"], values["tokens_per_second"], values["seconds_per_update"]) == (1.0, 2.0, 5.0)


def test_a_line_without_any_time_or_update_divides_by_nothing(clock: list[float]):
    assert Meter().take(0.0) == {"tokens_per_second": 0.0, "data_wait_share": 0.0, "seconds_per_update": pytest.approx(1e-9)}


def test_a_mean_that_goes_on_from_a_checkpoint_is_the_same_to_the_bit():
    draw = random.Random(4)
    reports = [
        report(n, draw.uniform(1, 9), applied=draw.random() > 0.2, norm=draw.expovariate(1), mlm=draw.random() / 3) for n in range(1, 30)
    ]
    whole = Meter()
    for one in reports:
        whole.add(one)
    expected = whole.take(0.0)
    for cut in (0, 1, 13, 29):
        before = Meter()
        for one in reports[:cut]:
            before.add(one)
        after = Meter.from_dict(json.loads(json.dumps(before.as_dict())))
        for one in reports[cut:]:
            after.add(one)
        found = after.take(0.0)
        assert {key: found[key] for key in ("loss", "gradient_norm", "loss/mlm")} == {
            key: expected[key] for key in ("loss", "gradient_norm", "loss/mlm")
        }


def test_what_was_written_down_does_not_change_with_the_meter():
    meter = Meter()
    meter.add(report(1, 4.0))
    kept = json.dumps(meter.as_dict())
    restored = Meter.from_dict(json.loads(kept))
    restored.add(report(2, 8.0))
    assert json.dumps(meter.as_dict()) == kept


def test_a_rate_after_a_checkpoint_counts_only_what_was_done_since(clock: list[float]):
    meter = Meter()
    meter.add(report(1, 1.0, tokens=5000))
    clock[0] += 100.0
    restored = Meter.from_dict(meter.as_dict())
    restored.add(report(2, 1.0, tokens=100))
    clock[0] += 4.0
    values = restored.take(0.0)
    assert (values["tokens_per_second"], values["seconds_per_update"]) == (25.0, 4.0)


def test_peak_memory_is_that_of_a_process_with_torch():
    """More than torch's own 100 MB, less than a machine."""
    assert 0.1 < peak_memory_gb() < 500


def test_a_term_that_was_not_computed_in_every_update_has_the_mean_over_those_in_which_it_was():
    meter = Meter()
    meter.add(report(1, 1.0, mlm=1.0))
    meter.add(report(2, 2.0, mlm=2.0, cosine=0.5))
    meter = Meter.from_dict(json.loads(json.dumps(meter.as_dict())))
    meter.add(report(3, 3.0, mlm=3.0, cosine=0.25))
    values = meter.take(0.0)
    assert (values["loss/mlm"], values["loss/cosine"], values["loss"]) == (2.0, 0.375, 2.0)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_peak_memory_is_not_that_of_the_process_that_started_this_one():
    held = bytearray(os.urandom(1 << 20) * 1500)  # a child's ru_maxrss would begin at these 1.6 GB
    said = subprocess.run(
        [sys.executable, "-c", "from launcher.reporting.meter import peak_memory_gb; print(peak_memory_gb())"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(held) / 1e9 > 1.5
    assert 0.05 < float(said.stdout) < 1.2
