"""Held-out scores are those of transformers alone, document by document in float64."""

import argparse
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForMaskedLM

from data_shards.build.build import build
from data_shards.build.settings import BuildSettings
from data_shards.errors import DataError
from data_shards.sources.settings import SourceSettings
from data_shards.stream.settings import MaskingSettings, StreamSettings
from data_shards.stream.stream import Stream
from kd.errors import KdError
from launcher.commands.parser import parser
from launcher.errors import LaunchError
from launcher.evaluation.evaluate import run, score, show

pytestmark = pytest.mark.slow

SETTINGS = StreamSettings(window_tokens=32, seed=5, masking=MaskingSettings(rate=0.2))


@pytest.fixture(scope="module")
def student(save_model, corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another random BERT, whose vocabulary is padded by six rows."""
    folder = tmp_path_factory.mktemp("student")
    save_model(folder, corpus.vocabulary + 6, seed=8, layers=2)
    return folder


@pytest.fixture(scope="module")
def rows(corpus, student: Path) -> list[dict[str, Any]]:
    return score([str(student)], str(corpus.shards), str(corpus.model), SETTINGS, batch=7)


def documents(corpus) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(masked ids, labels) of each held-out document piece, one at a time."""
    found = []
    for rows in Stream(corpus.shards, "heldout", SETTINGS, 1).sequential(1):
        for segment in range(1, int(rows.segments.max()) + 1):
            at = rows.segments[0] == segment
            found.append((torch.from_numpy(rows.input_ids[0, at]).long()[None], torch.from_numpy(rows.labels[0, at]).long()))
    return found


def alone(folder: Path, corpus) -> tuple[torch.Tensor, torch.Tensor]:
    """log-probabilities [N, V] in float64 and labels [N] of every predicted token, by transformers and nothing of ours."""
    model = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float64).eval()
    log_probs, labels = [], []
    with torch.no_grad():
        for ids, truth in documents(corpus):
            logits = model(input_ids=ids).logits[0, :, : corpus.vocabulary]
            log_probs.append(logits.log_softmax(-1)[truth != -100])
            labels.append(truth[truth != -100])
    return torch.cat(log_probs), torch.cat(labels)


def test_scores_are_those_of_transformers_alone_in_float64(corpus, student: Path, rows: list[dict[str, Any]]):
    theirs, labels = alone(corpus.model, corpus)
    ours, _ = alone(student, corpus)
    for row, log_probs in zip(rows, (theirs, ours), strict=True):
        ranks = (log_probs > log_probs.gather(1, labels[:, None])).sum(1)
        assert row["tokens"] == len(labels)
        assert row["loss"] == pytest.approx(-log_probs.gather(1, labels[:, None]).mean().item(), abs=1e-5)
        assert row["top1"] == pytest.approx((ranks < 1).double().mean().item(), abs=1e-12)
        assert row["top5"] == pytest.approx((ranks < 5).double().mean().item(), abs=1e-12)
        kl = (theirs.exp() * (theirs - log_probs)).sum(1).mean().item()
        assert row["kl"] == pytest.approx(kl, abs=1e-5)
        agreement = (theirs.argmax(1) == log_probs.argmax(1)).double().mean().item()
        assert row["agreement"] == pytest.approx(agreement, abs=1e-12)
    assert len(labels) > 200
    assert rows[1]["kl"] > 0.5


def test_the_teacher_comes_first_and_agrees_with_itself(corpus, student: Path, rows: list[dict[str, Any]]):
    teacher, other = rows
    assert [row["model"] for row in rows] == [str(corpus.model), str(student)]
    assert (teacher["agreement"], teacher["kl"], teacher["retention"]) == (1.0, pytest.approx(0.0, abs=1e-9), 1.0)
    assert other["retention"] == other["top1"] / teacher["top1"]


def test_parameters_count_tied_weights_once(corpus, rows: list[dict[str, Any]]):
    model = AutoModelForMaskedLM.from_pretrained(corpus.model)
    assert rows[0]["parameters"] == sum(weight.numel() for weight in model.parameters())


def test_scores_do_not_depend_on_the_batch_and_are_the_same_each_time(corpus, student: Path, rows: list[dict[str, Any]]):
    again = score([str(student)], str(corpus.shards), str(corpus.model), SETTINGS, batch=7)
    assert again == rows
    single = score([str(student)], str(corpus.shards), str(corpus.model), SETTINGS, batch=1)
    for row, other in zip(rows, single, strict=True):
        assert {name: row[name] for name in ("top1", "top5", "tokens", "agreement")} == {
            name: other[name] for name in ("top1", "top5", "tokens", "agreement")
        }
        assert row["loss"] == pytest.approx(other["loss"], abs=1e-6)


def test_a_teacher_among_the_models_is_scored_once_in_its_place(corpus, student: Path):
    found = score([str(student), str(corpus.model)], str(corpus.shards), str(corpus.model), SETTINGS, windows=8, batch=8)
    assert [row["model"] for row in found] == [str(student), str(corpus.model)]
    assert found[1]["agreement"] == 1.0


def test_without_a_teacher_there_is_nothing_to_compare_with(corpus, student: Path):
    (row,) = score([str(student)], str(corpus.shards), None, SETTINGS, windows=8, batch=8)
    assert (row["retention"], row["agreement"], row["kl"]) == (None, None, None)


def test_fewer_windows_are_the_first_ones(corpus, student: Path):
    (few,) = score([str(student)], str(corpus.shards), None, SETTINGS, windows=4, batch=4)
    heldout = Stream(corpus.shards, "heldout", SETTINGS, 1)
    first = next(iter(heldout.sequential(4)))
    assert few["tokens"] == int((first.labels != -100).sum())


def test_shards_without_a_heldout_part_are_refused(corpus, tmp_path: Path):
    source = SourceSettings(path=str(corpus.text))
    build(BuildSettings(sources=(source,), tokenizer=str(corpus.model), heldout=0, max_documents=20), tmp_path / "s", processes=1)
    with pytest.raises(LaunchError, match=r"expected a held-out part, got none; build the shards with --heldout 0\.01"):
        score([str(corpus.model)], str(tmp_path / "s"), None, SETTINGS)


def test_a_model_of_another_vocabulary_is_refused_by_name(save_model, corpus, tmp_path: Path):
    save_model(tmp_path, corpus.vocabulary - 1)
    with pytest.raises(LaunchError, match=rf"{tmp_path}: expected a vocabulary of {corpus.vocabulary}, the shards', got "):
        score([str(tmp_path)], str(corpus.shards), None, SETTINGS)
    with pytest.raises(LaunchError, match=r"data\.window_tokens: expected at most 48"):
        score([str(corpus.model)], str(corpus.shards), None, StreamSettings(window_tokens=64))


def test_a_folder_without_a_model_or_without_a_head_is_refused(corpus, tmp_path: Path):
    with pytest.raises(KdError, match=r"/nowhere/m: "):
        score(["/nowhere/m"], str(corpus.shards), None, SETTINGS)
    AutoModelForMaskedLM.from_pretrained(corpus.model).bert.save_pretrained(tmp_path)
    with pytest.raises(KdError, match=r"new_head"):
        score([str(tmp_path)], str(corpus.shards), None, SETTINGS)


def test_damaged_heldout_shards_are_refused(corpus, tmp_path: Path):
    shutil.copytree(corpus.shards, tmp_path / "s")
    (tmp_path / "s" / "heldout-000000.tar").unlink()
    with pytest.raises(DataError, match=r"heldout-000000\.tar: expected a file of \d+ bytes, got none"):
        score([str(corpus.model)], str(tmp_path / "s"), None, SETTINGS)


def test_the_verb_prints_a_table_and_writes_the_same_numbers(corpus, student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["evaluate", str(student), "--shards", str(corpus.shards), "--teacher", str(corpus.model), "--json", str(tmp_path / "s.json")]
    words += ["--window-tokens", "32", "--windows", "16", "--batch", "8", "--seed", "5", "--mask-rate", "0.2"]
    assert run(parser().parse_args(words)) == 0
    found = json.loads((tmp_path / "s.json").read_text())
    assert found == score([str(student)], str(corpus.shards), str(corpus.model), SETTINGS, windows=16, batch=8)
    assert "100.0%" in capsys.readouterr().out


def test_a_place_where_the_numbers_cannot_be_written_is_found_before_the_work(corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("launcher.evaluation.evaluate.score", lambda *_: pytest.fail("scored first"))
    for place in (tmp_path / "file" / "s.json", tmp_path / "absent" / "s.json", tmp_path):
        words = ["evaluate", str(corpus.model), "--shards", str(corpus.shards), "--json", str(place)]
        with pytest.raises(LaunchError, match=r"--json: expected a file that can be written, got "):
            run(parser().parse_args(words))


def test_the_table_says_each_score_in_its_unit():
    console = Console(width=160, file=io.StringIO())
    teacher = {
        "model": "t",
        "loss": 3.25,
        "top1": 0.5,
        "top5": 0.75,
        "retention": 1.0,
        "agreement": 1.0,
        "kl": 0.0,
        "parameters": 22_700_000,
    }
    rated = {**teacher, "model": "s", "retention": None, "agreement": None, "kl": None, "tokens_per_second": 12345.6}
    with console.capture() as capture:
        show([teacher, rated], console, names={"s": "student"})
    lines = capture.get().splitlines()
    headings, cells = lines[1], [line.split() for line in lines if "22.7M" in line]
    assert [word for word in headings.split() if word.strip("┃│")] == [
        "model", "loss", "top-1", "top-5", "retained", "agrees", "KL", "size", "tokens/s",
    ]  # fmt: skip
    assert [word for word in cells[0] if word != "│"] == ["t", "3.250", "50.0%", "75.0%", "100.0%", "100.0%", "0.000", "22.7M"]
    assert [word for word in cells[1] if word != "│"] == ["student", "3.250", "50.0%", "75.0%", "22.7M", "12,346"]


def test_the_verbs_arguments_have_the_streams_defaults():
    arguments: argparse.Namespace = parser().parse_args(["evaluate", "m", "--shards", "s"])
    plain = StreamSettings()
    assert (arguments.window_tokens, arguments.seed, arguments.mask_rate) == (plain.window_tokens, plain.seed, plain.masking.rate)
