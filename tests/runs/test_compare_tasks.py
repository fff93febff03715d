"""A comparison and a chain of runs on a task as a user starts them, with real runs."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from fork_server import ForkServer
from task_files import make_task

from launcher.commands.parser import parser
from launcher.comparison import chain, compare, light_checks
from launcher.errors import LaunchError
from launcher.process.signals import CAUGHT, Exit

pytestmark = [pytest.mark.slow, pytest.mark.tasks]
BASE = """
run: {{folder: x}}
data: {{kind: classification, train: {folder}/train.jsonl, dev: {folder}/dev.jsonl, max_length: 64}}
student: {{init: {model}, architecture: same}}
train: {{global_batch: 16, micro_batch: 16, epochs: 1, precision: fp32}}
optimizer: {{learning_rate: 3.0e-3}}
evaluate: {{resamples: 100}}
"""
RATES = """
base: {base}
settings: [report.every_updates=1]
seeds: [1, 2]
variants:
  slow: [optimizer.learning_rate=1.0e-6]
  fast: [optimizer.learning_rate=3.0e-3, train.epochs=3]
"""
CHAIN = """
base: {base}
settings: [student.init=teacher, teacher.allow_untrained=true]
links:
  half: [student.layers=every_other, train.epochs=2]
  quarter: [student.layers=first, student.count=1, train.updates=3]
"""


@pytest.fixture(autouse=True)
def handlers(monkeypatch: pytest.MonkeyPatch, fork_server: ForkServer) -> Iterator[None]:
    """Runs are forked, with one thread; this process's signal handlers are put back."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    fork_server.fork_jobs(monkeypatch)
    before = {number: signal.getsignal(number) for number in CAUGHT}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def arguments(school, tmp_path: Path):
    """arguments(verb, text, *words): those of a verb on a file with that text, for a base on a small task."""
    folder = make_task(tmp_path / "task", "classification", rows=96).folder
    base = tmp_path / "base.yaml"
    base.write_text(BASE.format(folder=folder, model=school.teacher))

    def make(verb: str, text: str, *words: str):
        file = tmp_path / "mine.yaml"
        file.write_text(text.format(base=base))
        return parser().parse_args([verb, str(file), *words, "--folder", str(tmp_path / "out")])

    return make


def test_a_comparison_ranks_by_the_metric_states_the_noise_and_does_nothing_twice(arguments, tmp_path, capsys):
    chosen = arguments("compare", RATES)
    light_checks.check_comparisons(chosen)
    chosen.dry_run = True
    assert compare.run(chosen) == Exit.DONE
    assert "18" in capsys.readouterr().out  # updates of three epochs of 96 rows
    chosen.dry_run = False
    assert compare.run(chosen) == Exit.DONE
    shown = capsys.readouterr().out
    root = tmp_path / "out" / "mine"
    made = json.loads((root / "comparison.json").read_text())
    assert [entry["variant"] for entry in made["ranking"]] == ["fast", "slow"]
    for run in made["runs"]:
        own = json.loads((root / run["variant"] / f"seed-{run['seed']}" / "report.json").read_text())
        assert run["accuracy"] == own["dev"]["accuracy"]
        low, high = own["dev"]["intervals"]["accuracy"]
        assert run["half_interval"] == pytest.approx((high - low) / 2)
    assert "slow: accuracy -" in shown or "slow: within the noise" in shown
    assert "Few seeds: at least 3" in shown
    before = {path: path.stat().st_mtime_ns for path in root.rglob("report.json")}
    assert compare.run(arguments("compare", RATES, "--report")) == Exit.DONE
    assert compare.run(arguments("compare", RATES)) == Exit.DONE
    assert {path: path.stat().st_mtime_ns for path in root.rglob("report.json")} == before
    changed = arguments("compare", RATES.replace("1.0e-6", "1.0e-5"))
    with pytest.raises(LaunchError, match="expected the run that variant slow is now, got another"):
        light_checks.check_comparisons(changed)


def test_a_chain_of_teacher_assistants_on_a_task(arguments, school, tmp_path, capsys):
    teacher = tmp_path / "out" / "mine" / "teacher" / "seed-1" / "student"
    first = "\nbase: {base}\nseeds: [1]\nvariants: {{teacher: [train.epochs=3], other: [train.epochs=1]}}\n"
    assert compare.run(arguments("compare", first)) == Exit.DONE
    chosen = arguments("chain", CHAIN, f"teacher.model={teacher}")
    light_checks.check_chain(chosen)
    chosen.folder = str(tmp_path / "chain")
    assert chain.run(chosen) == Exit.DONE
    assert "quarter" in capsys.readouterr().out
    rows = json.loads((tmp_path / "chain" / "mine" / "chain.json").read_text())
    assert [row["name"] for row in rows] == ["teacher", "half", "quarter"]
    assert rows[1]["parameters"] > rows[2]["parameters"]
    used = json.loads((tmp_path / "chain" / "mine" / "quarter" / "report.json").read_text())
    assert used["teachers"][0]["accuracy"] == rows[1]["accuracy"]
    refused = arguments("chain", CHAIN.replace("student.count=1", "student.count=9"), f"teacher.model={teacher}")
    with pytest.raises(LaunchError, match=r"links\.quarter"):
        chain.run(refused)
