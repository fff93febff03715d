"""A start reads the corpus's own files once, whichever part of the run needs them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from school import School

pytestmark = pytest.mark.slow
SAMPLED = ("student.width=16", "student.architecture=same", "objective=[{kind: soft_targets}]")
COMPARED = ("objective.2.layer_map=cka",)


@pytest.mark.parametrize("packing", ["windows", "documents"])
@pytest.mark.parametrize("words", [SAMPLED, COMPARED], ids=["sampled", "compared"])
def test_a_start_reads_manifest_token_statistics_lengths_and_tokenizer_once(
    school: School, run_ranks: Callable[..., str], tmp_path: Path, packing: str, words: tuple[str, ...]
):
    settings = (f"run.folder={tmp_path / 'run'}", f"data.shards={school.shards}", f"teacher.model={school.teacher}", "train.updates=2")
    result = tmp_path / "opened.json"
    run_ranks(1, "opened_files", result, school.shards, "--config", "tiny", *settings, f"data.packing={packing}", *words)
    assert (tmp_path / "run" / "report.json").exists()
    opened = json.loads(result.read_text())
    lengths = {"lengths-train.npy": 1, "lengths-heldout.npy": 1} if packing == "documents" else {}
    tokenizer = {name: count for name, count in opened.items() if name.startswith("tokenizer/")}
    shards = {name: count for name, count in opened.items() if name.endswith(".tar")}
    assert tokenizer == {f"tokenizer/{path.name}": 2 for path in (school.shards / "tokenizer").iterdir()}, "checked once, exported once"
    assert len(shards) > 1
    assert {name: count for name, count in opened.items() if name not in {*tokenizer, *shards}} == {
        "manifest.json": 1,
        "vocabulary.npz": 1,
        **lengths,
    }
