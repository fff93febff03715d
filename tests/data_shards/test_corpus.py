"""An open corpus: each file is read at its first use and kept; the tokenizer of a remote one is copied into the cache folder."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from data_shards.corpus import Corpus
from data_shards.errors import DataError
from data_shards.stream.settings import StreamSettings
from data_shards.stream.stream import Stream


class Recorder(SimpleHTTPRequestHandler):
    requests: list[str] = []  # noqa: RUF012 - reset by the test

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.requests.append(self.path)
        super().do_GET()


def test_an_open_corpus_reads_each_file_once(tmp_path, make_shards):
    make_shards(tmp_path, [[10], [11, 12, 13]], [[30, 31]])
    corpus = Corpus.open(tmp_path)
    for name in ("manifest.json", "vocabulary.npz"):
        assert (tmp_path / name).exists()
    assert corpus.lengths("train").tolist() == [1, 3]
    assert corpus.token_statistics.counts[[10, 11, 30]].tolist() == [1, 1, 0]
    assert corpus.tokenizer.decode([10, 11]) == "w10 w11"
    for path in tmp_path.rglob("*"):
        if path.suffix in (".json", ".npy", ".npz"):
            path.unlink()
    assert Corpus.open(corpus) is corpus
    assert corpus.lengths("train").tolist() == [1, 3]
    assert corpus.token_statistics is Corpus.open(corpus).token_statistics
    assert corpus.tokenizer is corpus.tokenizer
    assert Stream(corpus, "train", StreamSettings(window_tokens=6), 1).windows_per_epoch == 2
    with pytest.raises(DataError, match=r"lengths-heldout\.npy: expected"):
        corpus.lengths("heldout")


def test_the_tokenizer_folder_of_local_shards_is_their_own(shards):
    assert Corpus.open(shards).tokenizer_folder() == shards / "tokenizer"
    assert Corpus.open(f"file://{shards}/").tokenizer_folder() == shards / "tokenizer"


def test_the_tokenizer_of_remote_shards_is_copied_into_the_cache_folder(shards, tmp_path: Path):
    Recorder.requests = []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Recorder, directory=str(shards))) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        corpus = Corpus.open(f"http://127.0.0.1:{server.server_address[1]}", tmp_path / "cache")
        folder = corpus.tokenizer_folder()
        assert corpus.tokenizer.get_vocab() == Corpus.open(shards).tokenizer.get_vocab()
        server.shutdown()
    own = shards / "tokenizer"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {path.name: path.read_bytes() for path in own.iterdir()}
    assert sorted(Recorder.requests) == sorted(["/manifest.json", *(f"/tokenizer/{path.name}" for path in own.iterdir())])
