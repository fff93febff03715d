"""`--dry-run --estimate` on real ranks: real updates, a speed and a time, and nothing left behind."""

import re

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("ranks", [1, 2])
def test_an_estimate_measures_real_updates_and_leaves_no_file(start, tmp_path, ranks):
    folder = tmp_path / "run"
    run = start(folder, "train.updates=1000", ranks=ranks, arguments=("--dry-run", "--estimate"))
    assert run.wait() == [0] * ranks, run.output
    (line,) = re.findall(r"^measured on .*$", run.output, flags=re.M)
    match = re.fullmatch(
        r"measured on 5 updates: ([\d.]+) updates/s, ([\d,]+) tokens/s, [\d.]+ GB of memory; 1,000 updates: (.*), "
        r"and evaluations and checkpoints on top",
        line,
    )
    assert match, line
    rate = float(match[1])
    minutes = re.fullmatch(r"(?:(\d+) min )?(\d+) s", match[3])
    assert minutes, line
    assert 60 * int(minutes[1] or 0) + int(minutes[2]) == pytest.approx(1000 / rate, rel=0.02, abs=1)
    assert run.output.index("the run") < run.output.index("measured on") < run.output.index("\nrun:\n")
    assert not folder.exists()
    assert {path.suffix for path in tmp_path.iterdir()} <= {".log"}


def test_a_run_of_one_update_is_measured_on_it(start, tmp_path):
    run = start(tmp_path / "run", "train.updates=1", arguments=("--dry-run", "--estimate"))
    assert run.wait() == [0], run.output
    assert "measured on 1 update: " in run.output
    assert "; 1 update: " in run.output


def test_an_estimate_is_part_of_a_dry_run_only(start, tmp_path):
    run = start(tmp_path / "run", arguments=("--estimate",))
    assert run.wait() == [2]
    assert run.output.strip() == "stillhouse: --estimate: expected --dry-run with it, got none; add --dry-run"
    assert not (tmp_path / "run").exists()
