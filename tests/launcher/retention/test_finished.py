"""The score that chooses a learning rate."""

import json
from pathlib import Path

import pytest

from launcher.comparison.jobs import Job
from launcher.retention.finished import choosing_score


def finished(folder: Path, choose: int, best_update: int | None) -> Job:
    """A finished run whose weights of update 20 scored best on the part that chose, and whose dev score is 0.5."""
    folder.mkdir()
    rows = {"train": 90, "dev": 20} | ({"choose": choose} if choose else {})
    report = {"task": {"metric": "accuracy"}, "rows": rows, "dev": {"accuracy": 0.5}}
    (folder / "report.json").write_text(json.dumps(report | ({"best_update": best_update} if best_update else {})))
    lines = [{"kind": "heldout", "update": update, "heldout_accuracy": score} for update, score in ((10, 0.6), (20, 0.9), (30, 0.7))]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Job("run", folder, "tasks/sst2", (), 30)


@pytest.mark.parametrize(("choose", "best_update", "expected"), [(0, None, 0.5), (10, 20, 0.9), (10, None, 0.7)])
def test_a_rate_is_chosen_by_the_rows_that_chose_the_weights(tmp_path, choose, best_update, expected):
    assert choosing_score(finished(tmp_path / "run", choose, best_update)) == expected
