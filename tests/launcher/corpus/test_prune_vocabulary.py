"""`stillhouse vocabulary prune`: teacher and shards that fit each other, and mistakes found before anything is read or written."""

from pathlib import Path

import pytest
from rich.console import Console
from transformers import AutoTokenizer

from data_shards.errors import DataError
from data_shards.storage.manifest import Manifest
from data_shards.verify import verify
from kd.errors import KdError
from kd.models.loading import load_mlm
from launcher.config.load import load_config
from launcher.corpus.prune_vocabulary import prune, show
from launcher.errors import LaunchError
from launcher.planning.plan import make_plan


@pytest.fixture(scope="module")
def model(tmp_path_factory, corpus) -> Path:
    """The corpus's model beside the corpus's tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    for source in (Path(corpus.model), Path(corpus.shards) / "tokenizer"):
        for file in source.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_the_pruned_teacher_and_shards_make_a_run(model, corpus, tmp_path):
    size = corpus.vocabulary - 5
    pruned = prune(str(model), str(corpus.shards), tmp_path / "out", size)
    assert pruned.entries == (corpus.vocabulary, size)
    assert pruned.parameters[0] - pruned.parameters[1] == 5 * (32 + 1)
    assert pruned.tokens is not None
    assert pruned.tokens[1] > pruned.tokens[0]
    assert 0 < pruned.covered < 1
    verify(tmp_path / "out/shards")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out/model")
    assert len(tokenizer.get_vocab()) == load_mlm(str(tmp_path / "out/model")).vocabulary == size
    assert Manifest.load(tmp_path / "out/shards").vocabulary_size == size
    settings = [f"run.folder={tmp_path / 'run'}", f"data.shards={tmp_path / 'out/shards'}", f"teacher.model={tmp_path / 'out/model'}"]
    assert make_plan(load_config("tiny", settings), world=1).student_parameters > 0
    console = Console(width=100, record=True, file=(tmp_path / "shown").open("w"))
    show(pruned, tmp_path / "out", console)
    console.file.close()
    shown = console.export_text()
    assert f"{size}" in shown
    assert "stayed as they were" in shown


def test_the_model_alone_on_request(model, corpus, tmp_path):
    pruned = prune(str(model), str(corpus.shards), tmp_path / "out", corpus.vocabulary - 1, with_shards=False)
    assert pruned.tokens is None
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model"]


def test_mistakes_are_one_line_before_weights_are_read(model, corpus, save_model, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in model.iterdir():
        (broken / file.name).write_bytes(b"never read" if file.suffix == ".safetensors" else file.read_bytes())
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"size: expected at least .*special tokens, single characters"):
        prune(str(broken), str(corpus.shards), out, 5)
    with pytest.raises(DataError, match="size: expected fewer than"):
        prune(str(broken), str(corpus.shards), out, corpus.vocabulary)
    with pytest.raises(KdError, match="expected a model folder, got nothing there"):
        prune(str(tmp_path / "nowhere"), str(corpus.shards), out, 50)
    (broken / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(KdError, match="expected a model of a known family"):
        prune(str(broken), str(corpus.shards), out, 50)
    assert not out.exists()
    with pytest.raises(LaunchError, match=r"--out .*: expected a free name"):
        prune(str(model), str(corpus.shards), model, 50)


def test_a_model_of_another_tokenizer_is_refused(model, corpus, tmp_path):
    other = tmp_path / "other"
    prune(str(model), str(corpus.shards), tmp_path / "first", corpus.vocabulary - 1, with_shards=False)
    with pytest.raises(DataError, match=r"expected the tokenizer .* that the shards were made with"):
        prune(str(tmp_path / "first/model"), str(corpus.shards), other, corpus.vocabulary - 2)
