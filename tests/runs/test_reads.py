"""A start reads the corpus's own files once, whichever part of the run needs them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from school import School

pytestmark = pytest.mark.slow
SAMPLED = ("student.width=16", "student.architecture=same", "objective=[{kind: soft_targets}]")
COMPARED = ("objective.2.layer_map=cka",)
PLANNED = {"lengths-train.npy": 1}
"""Of packed windows, the plan of a small corpus reads the lengths of documents."""


def opened_files(run_ranks: Callable[..., str], school: School, folder: Path, ranks: int, *words: str) -> list[dict[str, int]]:
    """For each rank of a run of two updates, or of a verb, how often it opened each file of its shards. Shards are left out."""
    settings = (f"run.folder={folder / 'run'}", f"data.shards={school.shards}", f"teacher.model={school.teacher}", "train.updates=2")
    verb = [words[0]] if words[0] in ("layers", "cache") else []
    run_ranks(ranks, "opened_files", folder, school.shards, *verb, "--config", "tiny", *settings, *words[len(verb) :])
    counts = [json.loads((folder / f"opened-{rank}.json").read_text()) for rank in range(ranks)]
    assert all(any(name.endswith(".tar") for name in files) for files in counts)
    return [{name: count for name, count in files.items() if not name.endswith(".tar")} for files in counts]


def tokenizer_files(school: School, count: int) -> dict[str, int]:
    return {f"tokenizer/{path.name}": count for path in (school.shards / "tokenizer").iterdir()}


@pytest.mark.parametrize("packing", ["windows", "documents"])
@pytest.mark.parametrize("words", [SAMPLED, COMPARED], ids=["sampled", "compared"])
def test_a_start_reads_manifest_token_statistics_lengths_and_tokenizer_once(
    school: School, run_ranks: Callable[..., str], tmp_path: Path, packing: str, words: tuple[str, ...]
):
    (files,) = opened_files(run_ranks, school, tmp_path, 1, f"data.packing={packing}", *words)
    assert (tmp_path / "run" / "report.json").exists()
    lengths = {"lengths-train.npy": 1, "lengths-heldout.npy": 1} if packing == "documents" else PLANNED
    exported_too = tokenizer_files(school, 2)
    assert files == {"manifest.json": 1, "vocabulary.npz": 1, **lengths, **exported_too}


def test_each_rank_reads_them_once(school: School, run_ranks: Callable[..., str], tmp_path: Path):
    exporting, other = opened_files(run_ranks, school, tmp_path, 2, *SAMPLED)
    assert exporting == {"manifest.json": 1, "vocabulary.npz": 1, **PLANNED, **tokenizer_files(school, 2)}
    assert other == {"manifest.json": 1, "vocabulary.npz": 1, **PLANNED, **tokenizer_files(school, 1)}


@pytest.mark.parametrize("words", [("layers",), ("cache", "teacher.mode=cached", "teacher.cache=states")], ids=["layers", "cache"])
def test_a_verb_that_checks_its_configuration_first_reads_them_once_too(
    school: School, run_ranks: Callable[..., str], tmp_path: Path, words: tuple[str, ...]
):
    (files,) = opened_files(run_ranks, school, tmp_path, 1, *words)
    assert (files["manifest.json"], files["vocabulary.npz"]) == (1, 1)
