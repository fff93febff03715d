"""The weight files of a model folder: those that are read, and what is wrong with them, by name.

Only headers are read here. Nothing is unpickled.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from kd.errors import KdError
from kd.models.family import Family
from stillhouse.errors import one_line

SINGLE = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""In the order in which transformers looks for them; an index lists further files."""
HEAD_BYTES = 512


def weight_files(folder: Path, named: str | None = None) -> list[Path]:
    """The files that transformers reads the weights from; others in the folder are not read. Empty where there are none.

    named: the file that config.json names (transformers_weights). Raises KdError for a listed file that is missing or holds no weights.
    """
    first = next((folder / name for name in ([named] if named else SINGLE) if (folder / name).exists()), None)
    if first is None:
        return []
    check_content(first)
    if not first.name.endswith(".index.json"):
        return [first]
    try:
        listed = sorted({str(name) for name in json.loads(first.read_text(encoding="utf-8"))["weight_map"].values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise KdError(f"{first}: expected an index of weight files, got {one_line(error)}; fetch it again") from error
    files = [folder / name for name in listed]
    for file in files:
        if not file.exists():
            raise KdError(f"{file}: expected a file of weights, as {first.name} lists it, got none; fetch it")
        check_content(file)
    return files


def check_content(file: Path) -> None:
    """Raise KdError for a file that is not what its name says: a Git LFS pointer, a web page, nothing, or no regular file."""
    if not file.is_file():  # a pipe would block the reader
        raise KdError(f"{file}: expected a regular file, got something else; fetch it again")
    try:
        with file.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    except OSError as error:
        raise KdError(f"{file}: expected a readable file, got {one_line(error)}; correct its permissions") from error
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        raise KdError(f"{file}: expected the file itself, got a Git LFS pointer to it; fetch it: git lfs pull")
    if start.startswith(b"<"):
        raise KdError(f"{file}: expected the file itself, got a web page; download it again, from the link to the raw file")
    if not head:
        raise KdError(f"{file}: expected the file itself, got an empty file; fetch it again")


def stored_names(files: Iterable[Path]) -> set[str]:
    """The tensor names in safetensors files, read from their headers only. Files of other kinds are left out."""
    names: set[str] = set()
    for file in files:
        if file.suffix != ".safetensors":
            continue
        try:
            with safe_open(file, framework="pt") as tensors:
                names.update(tensors.keys())
        except (OSError, SafetensorError) as error:
            raise KdError(f"{file}: expected a whole safetensors file, got {one_line(error)}; fetch it again") from error
    return names


def check_names(path: str, names: Iterable[str], family: Family) -> None:
    """Raise KdError for names of weights that hold the model, but not as names: behind a prefix, or inside another entry.

    names: those of the files, or of them those that the model has no place for.
    """
    names = sorted(names)
    whole = f"{family.word_embeddings}.weight"
    alone = whole.removeprefix(f"{family.base}.")
    for known in () if whole in names or alone in names else (whole, alone):
        other = next((name for name in names if name.endswith(f".{known}")), None)
        if other is not None:
            prefix = other.removesuffix(known)
            raise KdError(
                f"{path}: expected weights named as {known}, got {other}; save them again without the prefix {prefix!r}, "
                "or correct model_type in config.json"
            )
    if names and not any("." in name for name in names):
        raise KdError(f"{path}: expected weights by name, got the entries {', '.join(names[:4])}; save the state_dict inside by itself")
