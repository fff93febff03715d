"""The files of a source: which are read, in which order, and which are left out."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from glob import glob, has_magic
from pathlib import Path

import fsspec

from data_shards.errors import DataError
from data_shards.sources.formats import KIND_OF_ENDING
from data_shards.sources.settings import SourceSettings
from data_shards.storage.location import is_url
from stillhouse.errors import one_line

COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd"}
CARDS = {"readme", "license", "licence", "changelog", "citation", "notice"}
ABOUT_DATASETS = {"dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", "croissant.json", "metadata.json"}


@dataclass
class SourceFiles:
    """files: (path, kind) to read, sorted by path. left_out: (path, reason) of the others in a folder; hidden files are not listed."""

    files: list[tuple[str, str]] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)


def find_files(settings: SourceSettings) -> SourceFiles:
    """The files of a source. Raises DataError when there is none to read, and for a link that leads nowhere."""
    path = settings.path
    if is_url(path):
        return SourceFiles([(name, kind_of(settings, name)) for name in _remote_files(path)])
    place = Path(path).expanduser()
    if place.is_dir():
        return _of_folder(settings, place)
    if place.exists():
        _check_regular(place)
        return SourceFiles([(str(place), kind_of(settings, str(place)))])
    if has_magic(path):
        matches = sorted(glob(str(place), recursive=True))
        names = [name for name in matches if Path(name).is_file()]
        if not names:
            raise DataError(f"{path}: expected files that match, got none; correct the pattern")
        others = [(name, "a folder" if Path(name).is_dir() else "not a file") for name in matches if name not in set(names)]
        return SourceFiles([(name, kind_of(settings, name)) for name in names], others)
    raise DataError(
        f"{path}: expected a file, a folder or a glob, got nothing there; correct the path (a `datasets` name needs kind: dataset)"
    )


def kind_of(settings: SourceSettings, path: str) -> str:
    """The kind of a file: the one that was set, else that of its ending, else text."""
    return settings.kind if settings.kind != "auto" else KIND_OF_ENDING.get(ending(path), "text")


def ending(path: str) -> str:
    """The ending that tells the kind, in lower case: of a compressed file, that of the file inside."""
    name = Path(_name(path))
    return (Path(name.stem).suffix if name.suffix.lower() in COMPRESSIONS else name.suffix).lower()


def compression(path: str) -> str | None:
    """The compression that a file's ending tells, in either case."""
    return COMPRESSIONS.get(Path(_name(path)).suffix.lower())


def total_bytes(sources: list[SourceSettings]) -> int | None:
    """Stored bytes of all files, or None where that is not known before reading."""
    if any(source.kind == "dataset" or is_url(source.path) for source in sources):
        return None
    return sum(Path(path).stat().st_size for source in sources for path, _ in find_files(source).files)


def left_out(sources: list[SourceSettings]) -> list[tuple[str, str]]:
    """(path, reason) of every file in the folders of the sources that is not read."""
    local = [source for source in sources if source.kind != "dataset" and not is_url(source.path)]
    return [one for source in local for one in find_files(source).left_out]


def _name(path: str) -> str:
    """The last part of a path. A query ends it in URLs only: `?` may be in the name of a local file."""
    return (path.split("?")[0] if is_url(path) else path).rpartition("/")[2]


def _of_folder(settings: SourceSettings, place: Path) -> SourceFiles:
    found = SourceFiles()
    candidates = []
    for path in sorted(_walk(place)):
        known = KIND_OF_ENDING.get(ending(path.name))
        if settings.kind == "auto" and known is None:
            found.left_out.append((str(path), f"unknown ending {path.suffix or 'none'}"))
        elif settings.kind not in ("auto", "text") and known != settings.kind:
            found.left_out.append((str(path), f"not of kind {settings.kind}"))
        else:
            candidates.append(path)
    cards = [path for path in candidates if settings.kind != "text" and _is_card(path)]
    if len(cards) < len(candidates):  # a folder of such files alone is read
        candidates = [path for path in candidates if path not in set(cards)]
        found.left_out += [(str(path), "describes the data set") for path in cards]
    if not candidates:
        wanted = "files that end in " + ", ".join(KIND_OF_ENDING) if settings.kind == "auto" else f"files of kind {settings.kind}"
        raise DataError(f"{place}: expected a folder with {wanted}, got none; add files, or set the source's kind")
    for path in candidates:
        _check_regular(path)
    found.files = [(str(path), kind_of(settings, path.name)) for path in candidates]
    found.left_out.sort()
    return found


def _walk(place: Path) -> Iterator[Path]:
    """Every file below a folder that is not hidden, those of linked folders included. A folder is entered once."""
    entered = set()
    for folder, folders, names in os.walk(place, followlinks=True):
        key = (os.stat(folder).st_dev, os.stat(folder).st_ino)
        folders[:] = [] if key in entered else [name for name in folders if not name.startswith(".")]
        if key in entered:
            continue
        entered.add(key)
        yield from (Path(folder) / name for name in names if not name.startswith("."))


def _is_card(path: Path) -> bool:
    return path.name.lower() in ABOUT_DATASETS or path.name.split(".")[0].lower() in CARDS


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


def _remote_files(url: str) -> list[str]:
    if url.startswith(("http://", "https://")):
        return [url]
    try:
        system, place = fsspec.core.url_to_fs(url)
        found = sorted(system.glob(place) if has_magic(place) else system.find(place))
        return [system.unstrip_protocol(path) for path in found] or [url]
    except (OSError, ImportError, ValueError) as error:
        raise DataError(f"{url}: expected files that can be listed, got {one_line(error)}; check the URL") from None
