"""Whole lines, whatever happens to the process or the disk (with Reporters around: test_reporters.py)."""

import errno
import json
import os
from pathlib import Path

import pytest

from launcher.errors import LaunchError
from launcher.run_folder.metrics_file import AppendedFile, lost_lines, read, trim


def train(update: int) -> dict[str, object]:
    return {"kind": "train", "update": update, "loss": 1.5}


@pytest.mark.parametrize("damage", ['{"kind": "tra', "[1, 2]", '{"kind": "train"}'])
def test_damage_elsewhere_is_named_with_its_line(tmp_path: Path, damage: str):
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text(json.dumps(train(1)) + "\n" + damage + "\n" + json.dumps(train(3)) + "\n")
    with pytest.raises(LaunchError, match=r"metrics\.jsonl: line 2: expected a report line"):
        read(metrics)


def test_an_appended_file_keeps_order_over_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = AppendedFile(tmp_path / "lines")
    real = os.write
    monkeypatch.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(errno.EDQUOT, "quota")))
    for number in range(3):
        with pytest.raises(OSError, match="quota"):
            file.append(f"{number}\n")
    monkeypatch.setattr(os, "write", real)
    file.append("3\n")
    file.close()
    assert (tmp_path / "lines").read_text() == "0\n1\n2\n3\n"


def test_a_trim_in_between_is_followed(tmp_path: Path):
    file = AppendedFile(tmp_path / "metrics.jsonl")
    for update in (1, 2):
        file.append(json.dumps(train(update)) + "\n")
    assert trim(tmp_path / "metrics.jsonl", 1) == 1
    file.append(json.dumps(train(3)) + "\n")
    file.close()
    assert [line["update"] for line in read(tmp_path / "metrics.jsonl")] == [1, 3]


def test_a_file_that_was_removed_is_written_again(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    file = AppendedFile(path)
    file.append("a\n")
    path.unlink()
    file.append("b\n")
    assert path.read_text() == "a\nb\n"
    file.append("c\n")
    assert path.read_text() == "a\nb\nc\n"
    file.close()


def test_lines_that_are_missing_before_a_checkpoint_are_said(tmp_path: Path):
    assert lost_lines(tmp_path, 7, 10) == ""
    assert "lost the lines of updates 1 to 20," in lost_lines(tmp_path, 27, 10)
    (tmp_path / "metrics.jsonl").write_text(json.dumps(train(10)) + "\n")
    assert lost_lines(tmp_path, 17, 10) == ""
    assert "lost the lines of updates 11 to 20," in lost_lines(tmp_path, 20, 10)
