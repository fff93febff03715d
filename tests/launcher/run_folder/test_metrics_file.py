"""Whole lines, whatever happens to the process or the disk (with Reporters around: test_reporters.py)."""

import errno
import json
import os
from pathlib import Path

import pytest

from launcher.errors import LaunchError
from launcher.run_folder.metrics_file import AppendedFile, last_train_line, lost_lines, read, trim


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


def test_the_last_train_line_is_found_whatever_the_order_of_its_keys(tmp_path: Path):
    lines = [train(1), {"update": 2, "loss": 1.0, "kind": "train"}, {"kind": "event", "update": 3, "message": '"kind": "train"'}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"kind": "train", "upd')
    assert last_train_line(tmp_path) == lines[1]


def test_the_last_train_line_is_found_behind_the_end_of_a_long_one(tmp_path: Path):
    long = json.dumps({"kind": "event", "update": 1, "message": "x" * (1 << 17)})
    (tmp_path / "metrics.jsonl").write_text(json.dumps(train(1)) + "\n" + long + "\n")
    assert last_train_line(tmp_path) is None
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(train(2)) + "\n")
    assert last_train_line(tmp_path) == train(2)
