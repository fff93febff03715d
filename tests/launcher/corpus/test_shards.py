"""`stillhouse shards`: what it says when all is well, and one line for every bad corpus and every broken folder."""

import gzip
import json
import shutil
import sys
import threading
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from rich.console import Console

from data_shards.build.settings import BuildSettings
from data_shards.sources.settings import SourceSettings
from data_shards.storage.manifest import Manifest
from launcher import cli
from launcher.corpus.shards import build_with_progress


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


SMALL = ("--shard-tokens", "3000")


@pytest.fixture
def stillhouse(monkeypatch: pytest.MonkeyPatch, no_rank: None) -> Callable[..., int]:
    """stillhouse(verb, *words): the exit code of `stillhouse shards verb words`, through the real door."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words: object) -> int:
        monkeypatch.setattr(sys, "argv", ["stillhouse", "shards", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return int(left.value.code or 0)

    return call


@pytest.fixture
def refused(stillhouse: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """refused(verb, *words): the one line on stderr of a verb that must end with code 2."""

    def call(*words: object) -> str:
        assert stillhouse(*words) == 2
        text = capsys.readouterr().err
        assert text.count("\n") == 1, text
        return text.rstrip("\n")

    return call


@pytest.fixture
def building(corpus, tmp_path: Path) -> Callable[..., tuple[object, ...]]:
    """building(*words): the words of a build into tmp_path/out with the corpus's tokenizer, on one process."""
    return lambda *words: ("build", *words, "--out", tmp_path / "out", "--tokenizer", corpus.model, "--processes", 1)


@pytest.fixture
def copied(corpus, tmp_path: Path) -> Path:
    """A copy of the shards that a test may break."""
    shutil.copytree(corpus.shards, tmp_path / "copy")
    return tmp_path / "copy"


def one_line_about(message: str, *parts: str) -> None:
    assert message.startswith("stillhouse: ")
    for part in ("expected", "got", *parts):
        assert part in message, message


def test_a_build_says_what_it_made_and_a_second_one_returns_the_same(stillhouse, building, corpus, tmp_path, capsys):
    words = building(corpus.text, "--heldout", 0.1, *SMALL)
    assert stillhouse(*words) == 0
    said = capsys.readouterr()
    manifest = Manifest.load(tmp_path / "out")
    assert said.err == ""
    lines = said.out.splitlines()
    for line, split in zip(lines, ("train", "heldout"), strict=False):
        documents, tokens = manifest.documents(split), manifest.tokens(split)
        shards = "1 shard" if len(manifest.entries(split)) == 1 else f"{len(manifest.entries(split))} shards"
        assert line == f"{split}: {documents:,} documents, {tokens:,} tokens in {shards}"
    assert lines[2] == f"read 200 documents (0 empty, 0 duplicate, 0 invalid dropped or repaired); shards in {tmp_path / 'out'}"
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.tar")}
    assert stillhouse(*words) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert manifest.tokens("train") == Manifest.load(corpus.shards).tokens("train")


def test_a_held_out_split_that_is_empty_is_told(stillhouse, corpus, tmp_path, capsys):
    """Also that a folder's name is shown as it is: in brackets it was markup, and a traceback."""
    (tmp_path / "a.txt").write_text("the miller repairs the clock\n")
    out = tmp_path / "[red]x[/blue]"
    words = ("build", tmp_path / "a.txt", "--tokenizer", corpus.model, "--processes", 1, "--out", out)
    assert stillhouse(*words) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"read 1 document (0 empty, 0 duplicate, 0 invalid dropped or repaired); shards in {out}",
        "no document is held out at --heldout 0.01: runs on these shards have no held-out scores; raise it",
    ]
    assert stillhouse(*words[:-1], tmp_path / "2", "--heldout", 0) == 0
    assert "no document is held out" not in capsys.readouterr().out


def test_what_was_dropped_is_counted(stillhouse, building, tmp_path, capsys):
    path = tmp_path / "a.txt"
    path.write_text("the miller repairs the clock\n\nthe miller repairs the clock\n  \nseven barrels before dawn\n")
    assert stillhouse(*building(path, "--drop-duplicates", "--heldout", 0)) == 0
    assert "read 5 documents (2 empty, 1 duplicate, 0 invalid dropped or repaired)" in capsys.readouterr().out


def test_every_kind_of_source_gives_the_same_shards(stillhouse, building, corpus, tmp_path, capsys):
    plain, packed, columns, table = (tmp_path / name for name in ("a.txt", "b.txt.gz", "c.parquet", "d.csv"))
    plain.write_text("".join(f"{text}\n" for text in corpus.texts))
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    pq.write_table(pa.table({"body": corpus.texts}), columns)
    table.write_text("number,body\n" + "".join(f'{number},"{text}"\n' for number, text in enumerate(corpus.texts)))
    fingerprints = set()
    for source, *words in ((plain,), (packed,), (columns, "--column", "body"), (table, "--column", "body"), (corpus.text,)):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        assert stillhouse(*building(source, *words, *SMALL)) == 0
        fingerprints.add(Manifest.load(tmp_path / "out").fingerprint)
    assert len(fingerprints) == 1


def test_documents_can_be_files_or_paragraphs(stillhouse, building, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("the miller\nwarms\n\nseven barrels\nbefore dawn\n")
    for per, documents in (("line", 4), ("paragraph", 2), ("file", 1)):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        assert stillhouse(*building(path, "--per", per, "--heldout", 0)) == 0
        assert Manifest.load(tmp_path / "out").documents("train") == documents


def test_bytes_that_are_not_utf8_are_repaired_or_left_out_on_request(stillhouse, building, tmp_path, capsys):
    path = tmp_path / "a.txt"
    path.write_bytes(b"the miller\nthe caf\xe9\nseven barrels\n")
    for choice, documents in (("replace", 3), ("skip", 2)):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        assert stillhouse(*building(path, "--invalid-utf8", choice, "--heldout", 0)) == 0
        assert "1 invalid dropped or repaired" in capsys.readouterr().out
        assert Manifest.load(tmp_path / "out").documents("train") == documents


def test_missing_sources_and_tokenizers_are_one_line(refused, building, corpus, tmp_path):
    one_line_about(refused(*building("/nowhere/a.txt")), "/nowhere/a.txt")
    one_line_about(refused(*building(tmp_path / "*.jsonl")), "*.jsonl")
    (tmp_path / "empty").mkdir()
    one_line_about(refused(*building(tmp_path / "empty")), str(tmp_path / "empty"))
    message = refused("build", corpus.text, "--out", tmp_path / "out", "--tokenizer", "/nowhere/model")
    one_line_about(message, "tokenizer /nowhere/model")
    message = refused("build", corpus.text, "--out", tmp_path / "out", "--tokenizer", tmp_path / "empty")
    one_line_about(message, f"tokenizer {tmp_path / 'empty'}")


@pytest.mark.parametrize("content", ["", "\n\n \n\t\n"])
def test_an_empty_corpus_is_one_line(refused, building, tmp_path, content):
    (tmp_path / "a.txt").write_text(content)
    one_line_about(refused(*building(tmp_path / "a.txt")), "expected a document with text to train on")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_wrong_column_names_those_that_are_there(refused, building, corpus, tmp_path):
    one_line_about(refused(*building(corpus.text, "--column", "body")), "expected a column body, got columns text")
    pq.write_table(pa.table({"title": ["a"], "number": [1]}), tmp_path / "a.parquet")
    one_line_about(refused(*building(tmp_path / "a.parquet")), "expected a column text, got columns title, number")
    one_line_about(refused(*building(tmp_path / "a.parquet", "--column", "number")), "expected text in column number, got int64")


def test_text_that_is_not_utf8_is_named_by_file_and_byte(refused, building, tmp_path):
    (tmp_path / "a.txt").write_bytes(b"the miller\nthe caf\xe9\n")
    message = refused(*building(tmp_path / "a.txt"))
    assert message.startswith(f"stillhouse: {tmp_path / 'a.txt'}, byte 18: ")
    assert "0xe9" in message


def test_files_that_are_not_what_their_name_says_are_one_line(refused, building, tmp_path):
    for name, content in (("a.jsonl", b"{text: 1}\n"), ("b.parquet", b"no parquet"), ("c.txt.gz", b"no gzip")):
        (tmp_path / name).write_bytes(content)
        one_line_about(refused(*building(tmp_path / name)), name)
    whole = gzip.compress(b"the miller repairs the clock\n" * 500)
    (tmp_path / "e.txt.gz").write_bytes(whole[:-20])
    one_line_about(refused(*building(tmp_path / "e.txt.gz")), "e.txt.gz")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--kind", "xml"), "--kind: expected one of auto, "),
        (("--heldout", "1"), "--heldout: expected less than 1, got "),
        (("--heldout", "-0.1"), "--heldout: expected greater than or equal to 0, got "),
        (("--seed", "-1"), "--seed: "),
        (("--max-documents", "0"), "--max-documents: "),
        (("--shard-tokens", "0"), "--shard-tokens: "),
    ],
)
def test_a_setting_that_cannot_be_is_one_line_with_its_option(refused, building, corpus, tmp_path, words, message):
    found = refused(*building(corpus.text, *words))
    assert found.startswith(f"stillhouse: {message}")
    assert words[1] in found
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_place_of_the_folder_is_one_line(refused, corpus):
    words = ("build", corpus.text, "--tokenizer", corpus.model, "--out", corpus.text)
    one_line_about(refused(*words), "expected a folder, got a file; choose another")


def test_a_folder_with_other_things_or_other_shards_is_left_alone(refused, building, corpus, copied, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").write_text("dear")
    one_line_about(refused(*building(corpus.text)), "expected an empty folder, got letter.txt")
    assert [path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")] == ["letter.txt"]
    before = {path: path.read_bytes() for path in copied.rglob("*.tar")}
    message = refused("build", corpus.text, "--out", copied, "--tokenizer", corpus.model, "--seed", 9)
    one_line_about(message, "seed")
    assert {path: path.read_bytes() for path in before} == before


def test_a_place_that_cannot_be_written_is_one_line(refused, corpus, tmp_path):
    (tmp_path / "file").write_text("")
    message = refused("build", corpus.text, "--out", tmp_path / "file" / "out", "--tokenizer", corpus.model)
    one_line_about(message, "expected a folder that can be written")


def test_verify_counts_what_it_proved(stillhouse, corpus, capsys):
    manifest = Manifest.load(corpus.shards)
    shards = len(manifest.entries("train")) + len(manifest.entries("heldout"))
    tokens = manifest.tokens("train") + manifest.tokens("heldout")
    assert stillhouse("verify", corpus.shards) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"good: {shards} shards, ")
    assert f" 200 documents, {tokens:,} tokens, " in said
    assert said.count("\n") == 1
    assert stillhouse("verify", corpus.shards, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["shards"], facts["documents"], facts["tokens"]) == (shards, 200, tokens)


def test_verify_names_a_truncated_shard(refused, copied):
    path = copied / "train-000001.tar"
    path.write_bytes(path.read_bytes()[:-2000])
    one_line_about(refused("verify", copied), "train-000001.tar")


def test_verify_names_the_shard_of_a_flipped_byte(refused, copied):
    path = copied / "train-000002.tar"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    one_line_about(refused("verify", copied), "train-000002.tar")


def test_verify_names_a_missing_shard(refused, copied):
    (copied / "heldout-000000.tar").unlink()
    one_line_about(refused("verify", copied), "heldout-000000.tar: expected a file of")


@pytest.mark.parametrize("verb", ["verify", "info"])
def test_a_folder_that_is_no_shard_folder_is_one_line(refused, copied, tmp_path, verb):
    one_line_about(refused(verb, "/nowhere/s"), "/nowhere/s: expected a folder of shards")
    one_line_about(refused(verb, tmp_path), "expected the manifest of a shard folder")
    (copied / "manifest.json").write_text("{}")
    one_line_about(refused(verb, copied), "manifest.json: expected a manifest of format")
    (copied / "manifest.json").write_bytes(b"\xff\xfe")
    one_line_about(refused(verb, copied), "manifest.json")


@pytest.mark.parametrize("verb", ["verify", "info"])
def test_a_manifest_of_another_tokenizer_is_one_line(refused, copied, verb):
    path = copied / "tokenizer" / "tokenizer.json"
    path.write_text(
        path.read_text().replace('"lowercase": true', '"lowercase": false').replace('"lowercase":true', '"lowercase":false') + " "
    )
    one_line_about(refused(verb, copied), "tokenizer.json")


def test_remote_shards_are_read_through_a_cache_folder(stillhouse, refused, corpus, tmp_path, capsys):
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(corpus.shards))) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        one_line_about(refused("verify", address), address, "cache")
        for verb in ("verify", "info"):
            assert stillhouse(verb, address, "--json", "--cache-folder", tmp_path / "cache") == 0
            remote = capsys.readouterr().out
            assert stillhouse(verb, corpus.shards, "--json") == 0
            assert json.loads(remote) == json.loads(capsys.readouterr().out)
        server.shutdown()


def test_info_says_what_is_in_the_shards(stillhouse, corpus, capsys, monkeypatch: pytest.MonkeyPatch):
    """A column for each split, in 80 columns of a terminal, nothing cut off."""
    monkeypatch.setenv("COLUMNS", "80")
    manifest = Manifest.load(corpus.shards)
    assert stillhouse("info", corpus.shards, "--samples", 1) == 0
    said = capsys.readouterr().out
    assert "…" not in said.replace(f"{manifest.tokenizer_fingerprint[:12]}…", "").replace(f"{manifest.fingerprint[:12]}…", "")
    rows = {line[:26].strip(): line[26:].split() for line in said.splitlines()}
    assert rows["tokens"] == [f"{manifest.tokens(split):,}" for split in ("train", "heldout")]
    assert rows["documents"] == [f"{manifest.documents(split):,}" for split in ("train", "heldout")]
    assert rows["shards"] == [str(len(manifest.entries(split))) for split in ("train", "heldout")]
    assert len(rows["the longest"]) == 2
    assert max(len(line) for line in said.splitlines() if not line.startswith(("train:", "heldout:", "/"))) <= 80
    assert f"of {corpus.vocabulary} ids used" in said
    assert manifest.tokenizer_fingerprint[:12] in said
    assert manifest.fingerprint[:12] in said
    sample = next(line for line in said.splitlines() if line.startswith("train: ")).removeprefix("train: ")
    assert any(text.lower().replace(".", " .").startswith(sample.replace(" .", ".").replace(".", " .")[:20]) for text in corpus.texts)


def test_info_as_json_holds_the_same_facts(stillhouse, corpus, capsys):
    assert stillhouse("info", corpus.shards, "--json", "--samples", 0) == 0
    facts = json.loads(capsys.readouterr().out)
    manifest = Manifest.load(corpus.shards)
    assert facts["splits"]["train"]["documents"] == manifest.documents("train")
    assert facts["splits"]["train"]["samples"] == []
    assert facts["vocabulary_size"] == corpus.vocabulary
    assert facts["built_from"]["documents_read"] == 200


def test_a_terminal_sees_progress(corpus, tmp_path):
    settings = BuildSettings(sources=(SourceSettings(path=str(corpus.text)),), tokenizer=str(corpus.model))
    console = Console(force_terminal=True, width=160)
    with console.capture() as capture:
        build_with_progress(settings, tmp_path / "out", 1, console)
    assert "200 documents" in capture.get()


def test_parts_are_built_and_sealed_by_the_same_verb(stillhouse, refused, building, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "texts.txt").write_text("".join(f"the {word} river\n" for word in "amber birch cedar dune ember fern".split()))  # noqa: SIM905
    words = building(tmp_path / "texts.txt", "--heldout", 0)
    assert stillhouse(*words, "--part", "2/2") == 0
    assert "part 2 of 2 is ready" in capsys.readouterr().out
    assert "got none of part 1 (1 in all); build them, then merge with --seal 2" in refused(*words, "--seal", 2)
    assert stillhouse(*words, "--part", "1/2") == 0
    assert stillhouse(*words, "--seal", 2) == 0
    assert "train: 6 documents" in capsys.readouterr().out
    assert stillhouse("verify", tmp_path / "out") == 0
    assert stillhouse(*words, "--part", "3/2") == 2


def test_webdataset_tars_are_a_source_like_any_other(stillhouse, building, refused, corpus, tmp_path, capsys):
    plain = tmp_path / "a.txt"
    plain.write_text("".join(f"{text}\n" for text in corpus.texts))
    assert stillhouse(*building(plain, *SMALL)) == 0
    expected = Manifest.load(tmp_path / "out").fingerprint
    for number, half in enumerate((corpus.texts[:100], corpus.texts[100:])):
        with webdataset.TarWriter(str(tmp_path / f"{number:03d}.tar")) as sink:
            for sample, text in enumerate(half):
                sink.write({"__key__": f"{sample:06d}", "txt": text, "json": {"body": text}})
    for words in (("--text", "txt"), ("--text", "json:body")):
        shutil.rmtree(tmp_path / "out")
        assert stillhouse(*building(f"{tmp_path}/{{000..001}}.tar", "--kind", "webdataset", *words, *SMALL)) == 0
        assert Manifest.load(tmp_path / "out").fingerprint == expected
    shutil.rmtree(tmp_path / "out")
    one_line_about(refused(*building(f"{tmp_path}/000.tar", "--kind", "webdataset", "--text", "html")), "000.tar", "txt")


def test_the_last_lines_name_what_was_left_out_and_what_was_guessed(stillhouse, building, corpus, tmp_path, capsys):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "part-00000").write_text("".join(f"{text}\n" for text in corpus.texts))
    assert stillhouse(*building(f"{tmp_path}/in/*")) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"left out 1 file: {tmp_path}/in/sub (a folder)",
        f"read as text, for want of a known ending: {tmp_path}/in/part-00000",
    ]
