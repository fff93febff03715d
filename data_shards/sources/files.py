"""The files of a source in reading order, and the files that are left out."""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from glob import glob, has_magic
from pathlib import Path
from urllib.parse import urlsplit

import braceexpand
import fsspec

from data_shards.errors import DataError
from data_shards.sources.formats import BY_KIND, KIND_OF_ENDING
from data_shards.sources.settings import SourceSettings
from data_shards.storage.download import is_url
from stillhouse.errors import one_line

COMPRESSIONS = {".gz": "gzip", ".tgz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd"}
CARD = re.compile(r"(readme|licen[cs]e|changelog|citation|notice)([._-].*)?", re.IGNORECASE)
ABOUT_DATASETS = {"dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", "croissant.json", "metadata.json"}


@dataclass
class SourceFiles:
    """files: (path, kind) to read, sorted by path. left_out: (path, reason) of the others; hidden files are listed by a known ending.

    guessed: paths among `files` that are read as text because their ending is not known.
    """

    files: list[tuple[str, str]] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    guessed: list[str] = field(default_factory=list)


def find_files(settings: SourceSettings) -> SourceFiles:
    """The files of a source. Raises DataError when there is none to read, and for a link that leads nowhere."""
    path = settings.path
    if settings.kind == "dataset":
        return SourceFiles()
    if settings.kind == "webdataset" and not Path(path).expanduser().exists():
        expanded = _expanded(path)
        if expanded != [path]:
            listings = [find_files(settings.model_copy(update={"path": name})) for name in expanded]
            return SourceFiles(
                [file for listing in listings for file in listing.files], [file for listing in listings for file in listing.left_out]
            )
    if is_url(path):
        return _remote_files(settings)
    local = Path(path).expanduser()
    if local.is_dir():
        return _of_folder(settings, local)
    if local.exists():
        _check_regular(local)
        return _with_kinds(settings, [str(local)], [])
    if has_magic(path):
        return _of_pattern(settings, str(local))
    if local.is_symlink():
        _check_regular(local)
    raise DataError(
        f"{path}: expected a file, a folder or a glob, got nothing there; correct the path (a `datasets` name needs kind: dataset)"
    )


def kind_of(settings: SourceSettings, path: str) -> str:
    """The kind of a file: the setting; if it is auto, the kind of the ending; text for an unknown ending."""
    return settings.kind if settings.kind != "auto" else KIND_OF_ENDING.get(ending(path), "text")


def ending(path: str) -> str:
    """The ending that decides the kind, in lower case. For a compressed file it is the ending of the file inside."""
    name = Path(_name(path))
    inside = name.suffix.lower() in COMPRESSIONS and name.suffix.lower() != ".tgz"
    return (Path(name.stem).suffix if inside else name.suffix).lower()


def compression(path: str) -> str | None:
    """The compression of a file by its ending, in either case."""
    return COMPRESSIONS.get(Path(_name(path)).suffix.lower())


def total_bytes(sources: Iterable[SourceSettings]) -> int | None:
    """Stored bytes of all files, or None where that is not known before reading."""
    sources = list(sources)
    if any(source.kind == "dataset" or is_url(source.path) for source in sources):
        return None
    return sum(Path(path).stat().st_size for source in sources for path, _ in find_files(source).files)


def left_out(sources: Iterable[SourceSettings]) -> list[tuple[str, str]]:
    """(path, reason) of every file of the sources that is not read."""
    return [file for source in sources for file in find_files(source).left_out]


def guessed(sources: Iterable[SourceSettings]) -> list[str]:
    """Every file of the sources that is read as text because its ending is not known."""
    return [path for source in sources for path in find_files(source).guessed]


def _name(path: str) -> str:
    """The last part of a path. A query ends it in web addresses only: `?` may be in the name of a file."""
    return (urlsplit(path).path if path.startswith(("http://", "https://")) else path).rpartition("/")[2]


def _expanded(pattern: str) -> list[str]:
    """The expanded names of a brace pattern such as `{000..127}.tar`. Raises DataError for a command."""
    if pattern.startswith("pipe:"):
        raise DataError(f"{pattern}: expected files or URLs, got a command; write its output to a file")
    try:
        return list(braceexpand.braceexpand(pattern))
    except ValueError as error:
        raise DataError(f"{pattern}: expected a brace pattern such as {{000..127}}.tar, got {one_line(error)}; correct it") from None


def _of_folder(settings: SourceSettings, folder: Path) -> SourceFiles:
    left_out_files: list[tuple[str, str]] = []
    try:
        names = sorted(_walk(folder, left_out_files))
    except OSError as error:
        raise DataError(f"{folder}: expected a folder that can be read, got {one_line(error)}; correct its permissions") from None
    source_files = _chosen(settings, [str(name) for name in names], left_out_files, any_ending=settings.kind == "text")
    if not source_files.files:
        expected = "files that end in " + ", ".join(KIND_OF_ENDING) if settings.kind == "auto" else f"files of kind {settings.kind}"
        raise DataError(f"{folder}: expected a folder with {expected}, got none; add files, or set the source's kind (--kind)")
    for path, _ in source_files.files:
        _check_regular(Path(path))
    return source_files


def _of_pattern(settings: SourceSettings, pattern: str) -> SourceFiles:
    """The files that match a glob. A folder that several links lead to is read once."""
    names, left_out_files = [], []
    read = set()
    for name in sorted(glob(pattern, recursive=True)):
        path = Path(name)
        identity = (os.path.realpath(path.parent), path.name)
        if path.is_dir():
            if "**" not in pattern:
                left_out_files.append((name, "a folder"))
        elif identity not in read:
            _check_regular(path)
            read.add(identity)
            names.append(name)
    source_files = _chosen(settings, names, left_out_files, any_ending=True)
    if not source_files.files:
        raise DataError(f"{settings.path}: expected files that match, got none; correct the pattern")
    return source_files


def _chosen(settings: SourceSettings, names: list[str], left_out_files: list[tuple[str, str]], any_ending: bool) -> SourceFiles:
    """Of a folder's or pattern's files those to read. any_ending: an unknown ending, or that of another kind, is no reason against."""
    candidates = []
    for name in names:
        if settings.kind == "auto" and not any_ending and ending(name) not in KIND_OF_ENDING:
            left_out_files.append((name, f"unknown ending {suffix}" if (suffix := Path(name).suffix) else "no ending"))
        elif settings.kind not in ("auto", "text") and not any_ending and ending(name) not in BY_KIND[settings.kind].endings:
            left_out_files.append((name, f"not of kind {settings.kind}"))
        else:
            candidates.append(name)
    cards = {name for name in candidates if _is_card(name)}
    if len(cards) < len(candidates):  # such files alone are read
        candidates = [name for name in candidates if name not in cards]
        left_out_files += [(name, "describes the data set") for name in cards]
    return _with_kinds(settings, candidates, sorted(left_out_files))


def _with_kinds(settings: SourceSettings, names: list[str], left_out_files: list[tuple[str, str]]) -> SourceFiles:
    unknown = [name for name in names if settings.kind == "auto" and ending(name) not in KIND_OF_ENDING]
    return SourceFiles([(name, kind_of(settings, name)) for name in names], left_out_files, unknown)


def _walk(root: Path, left_out_files: list[tuple[str, str]]) -> Iterator[Path]:
    """Every file below a folder that is not hidden, those of linked folders included. Links that lead nowhere are files here.

    A folder inside the root is read at its own path, and one outside by the first link to it. So paths do not depend on the order
    in which a file system lists names. `left_out_files` gets hidden files with a known ending, and links to a folder that holds the root.
    """
    real_root = Path(os.path.realpath(root))
    entered = set()
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        linked = []
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            path = Path(entry.path)
            if entry.name.startswith("."):
                if ending(entry.name) in KIND_OF_ENDING and entry.is_file():
                    left_out_files.append((entry.path, "hidden"))
            elif not entry.is_dir():
                yield path
            elif entry.is_symlink():
                real = Path(os.path.realpath(path))
                if real_root != real and real_root.is_relative_to(real):
                    left_out_files.append((entry.path, "a link to a folder that holds this one"))
                elif not real.is_relative_to(real_root) and real not in entered:
                    entered.add(real)
                    linked.append(path)
            else:
                linked.append(path)
        waiting += reversed(linked)


def _is_card(path: str) -> bool:
    """True for a file that describes a data set or its licence and holds no documents."""
    name = _name(path)
    return name.lower() in ABOUT_DATASETS or (KIND_OF_ENDING.get(ending(name), "text") == "text" and CARD.fullmatch(name) is not None)


def _check_regular(path: Path) -> None:
    """Raises DataError for a link that leads nowhere, a pipe, a socket or a device."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise DataError(f"{path}: expected a file, got a link to {os.readlink(path)}, which is not there; correct or remove it") from None
    except OSError as error:
        raise DataError(f"{path}: expected a file, got {one_line(error)}; correct or remove it") from None
    if stat.S_ISFIFO(mode):
        raise DataError(f"{path}: expected a file, got a pipe, which cannot be read twice; write it into a file first")
    if not stat.S_ISREG(mode):
        raise DataError(f"{path}: expected a file, got something else; leave it out")


def _remote_files(settings: SourceSettings) -> SourceFiles:
    url = settings.path
    if url.startswith(("http://", "https://")):
        return _with_kinds(settings, [url], [])
    try:
        system, pattern = fsspec.core.url_to_fs(url)
        is_pattern = has_magic(pattern)
        names = [system.unstrip_protocol(path) for path in sorted(system.glob(pattern) if is_pattern else system.find(pattern))]
        if not names or (not is_pattern and system.isfile(pattern)):
            return _with_kinds(settings, names or [url], [])
    except (OSError, ImportError, ValueError) as error:
        raise DataError(f"{url}: expected files that can be listed, got {one_line(error)}; check the URL") from None
    source_files = _chosen(settings, names, [], any_ending=is_pattern or settings.kind == "text")
    if not source_files.files:
        raise DataError(f"{url}: expected files of kind {settings.kind}, got none; correct the URL, or set the source's kind (--kind)")
    return source_files
