"""Last hidden states of a frozen teacher on disk, looked up by a hash of the input row. Each row is computed once.

`FOLDER/cache.json` names the teacher and lists the files. It is written last, so a file that it does not list was never finished.
`states-SEGMENT-RANK.safetensors` holds the kept positions of some rows one after the other: states [n, D] in the teacher's own dtype, so
exact. It also holds each row's start, key and crc32.

A row's key is a hash of everything an encoder sees of it: ids, positions, documents, and which positions are predicted. So a cache serves
any order, batch, number of ranks or corpus. A row that it lacks is an error, never a guess. Nothing is pickled.
"""

import hashlib
import json
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kd.batch import Batch
from kd.checkpoint.tensors import save_tensors
from kd.errors import KdError
from stillhouse.digests import canonical_sha256
from stillhouse.files import sync_path, write_atomically

Positions = Literal["all", "masked"]
Precision = Literal["fp32", "bf16"]
Keys = NDArray[np.uint64]
"""[B, 2]: 128 bits a row."""

FORMAT = 1
HEADER = "cache.json"
OPEN_FILES = 16
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class CacheHeader:
    """The teacher of a cache, the positions that it holds, and its files.

    teacher: kd.models.loading.weights_digest of the model.
    width, layers: the teacher's sizes.
    positions: all real ones, or those that are predicted.
    covers: a stream's fingerprint -> how many of its rows the cache has, counted from the beginning.
    files: name -> bytes, rows, tokens and the digest of the tables.
    """

    teacher: str
    family: str
    layers: int
    width: int
    precision: Precision
    positions: Positions
    covers: dict[str, int] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Positions whose states are there."""
        return sum(int(file["tokens"]) for file in self.files.values())

    @property
    def rows(self) -> int:
        """Rows of a batch that are there."""
        return sum(int(file["rows"]) for file in self.files.values())

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(int(file["bytes"]) for file in self.files.values())

    def write(self, folder: Path) -> None:
        """Put cache.json in its place, whole or not at all."""
        body = {"format": FORMAT, **asdict(self)}
        temporary = folder / f".{HEADER}.writing"
        write_atomically(temporary, json.dumps(body | {"digest": canonical_sha256(body, ascii_only=True)}, indent=1, sort_keys=True))
        temporary.replace(folder / HEADER)
        sync_path(folder)


def read_header(folder: Path) -> CacheHeader:
    """cache.json, proven intact. Raises KdError."""
    path = folder / HEADER
    if not path.is_file():
        raise KdError(f"{path}: expected a cache of hidden states, got none; fill it: stillhouse cache, with the same configuration")
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        digest = body.pop("digest")
        if body["format"] != FORMAT:
            raise KdError(f"{path}: expected cache format {FORMAT}, got {body['format']}; use the version that wrote it, or fill another")
        if digest != canonical_sha256(body, ascii_only=True):
            raise KdError(f"{path}: expected the digest of what it says, got another; bring the file back, or fill another folder")
        del body["format"]
        header = CacheHeader(**body)
        if any(Path(name).name != name or not {"bytes", "rows", "tokens", "tables"} <= file.keys() for name, file in header.files.items()):
            raise ValueError("files that are none of a cache's")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        got = f"{type(error).__name__}: {error}"
        raise KdError(f"{path}: expected a cache's header, got {got}; bring the file back, or fill another folder") from error
    return header


def row_keys(batch: Batch) -> Keys:
    """[B, 2] uint64: 128 bits of blake2b of each row, its padding at the end left out."""
    seen = torch.stack([batch.input_ids, batch.positions, batch.segments, batch.predicted.long()], dim=1).to("cpu", torch.int32).numpy()
    ends = [int(row.nonzero()[0].max(initial=-1)) + 1 for row in seen[:, 2]]
    hashed = [hashlib.blake2b(row[:, :end].tobytes(), digest_size=16).digest() for row, end in zip(seen, ends, strict=True)]
    return np.frombuffer(b"".join(hashed), dtype="<u8").reshape(-1, 2)


def kept(batch: Batch, positions: Positions) -> Tensor:
    """[B, S] bool: positions whose states a cache of these positions has."""
    return batch.real if positions == "all" else batch.predicted


class StateCache:
    """A finished cache, to be read. Raises KdError for one that is not whole; every row's crc32 is checked when it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.header = read_header(folder)
        self.names = sorted(self.header.files)
        tables = [self._tables(name) for name in self.names]
        keys = np.concatenate([table["keys"] for table in tables]) if tables else np.zeros((0, 2), np.uint64)
        self._starts = [table["starts"] for table in tables]
        self._checks = [table["checks"] for table in tables]
        counts = [len(table["keys"]) for table in tables]
        places = [np.repeat(np.arange(len(counts)), counts), np.concatenate([np.arange(count) for count in [0, *counts]])]
        order = np.argsort(keys[:, 0], kind="stable")
        self._keys = keys[order]
        self._places = np.stack(places, axis=1)[order]
        self._open: OrderedDict[int, Any] = OrderedDict()

    def find(self, keys: Keys) -> NDArray[np.int64]:
        """[B, 2]: the file and the row of each key; -1 where it is not there."""
        found = np.full((len(keys), 2), -1, dtype=np.int64)
        for number, key in enumerate(keys):
            at = int(np.searchsorted(self._keys[:, 0], key[0]))
            while at < len(self._keys) and self._keys[at, 0] == key[0]:
                if self._keys[at, 1] == key[1]:
                    found[number] = self._places[at]
                    break
                at += 1
        return found

    def read(self, file: int, row: int) -> Tensor:
        """[n, D]: the states of one row, in its positions' order."""
        start, end = (int(number) for number in self._starts[file][row : row + 2])
        path = self.folder / self.names[file]
        try:
            states: Tensor = self._opened(file)[start:end].clone()
        except (OSError, SafetensorError) as error:
            raise KdError(f"{path}: expected hidden states, got {error}; bring the file back, or fill another folder") from error
        if crc32(states) != int(self._checks[file][row]):
            raise KdError(f"{path}: expected row {row} as it was written, got other numbers; bring the file back, or fill another folder")
        return states

    def _opened(self, file: int) -> Any:
        if file not in self._open:
            while len(self._open) >= OPEN_FILES:
                self._open.popitem(last=False)
            self._open[file] = safe_open(self.folder / self.names[file], framework="pt").get_slice("states")
        self._open.move_to_end(file)
        return self._open[file]

    def _tables(self, name: str) -> dict[str, NDArray[Any]]:
        """Keys, starts and crc32s of a file, proven to be those that cache.json means."""
        path, facts = self.folder / name, self.header.files[name]
        there = path.stat().st_size if path.is_file() else "none"
        if there != facts["bytes"]:
            raise KdError(f"{path}: expected {facts['bytes']} bytes, got {there}; bring the file back, or fill another folder")
        try:
            with safe_open(path, framework="np") as file:
                tables = {part: file.get_tensor(part) for part in ("keys", "starts", "checks")}
        except (OSError, ValueError, SafetensorError) as error:
            raise KdError(f"{path}: expected hidden states, got {error}; bring the file back, or fill another folder") from error
        if _tables_digest(tables) != facts["tables"]:
            raise KdError(f"{path}: expected the tables that {HEADER} means, got others; bring the file back, or fill another folder")
        return tables | {"keys": tables["keys"].view(np.uint64)}


class CacheWriter:
    """The writer of one rank: it collects rows in memory and writes a file of them at each `flush`."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.folder = folder
        self.rank = rank
        self._keys: list[Keys] = []
        self._rows: list[Tensor] = []

    @property
    def bytes(self) -> int:
        """Of states in memory."""
        return sum(row.nbytes for row in self._rows)

    def add(self, keys: Keys, rows: Sequence[Tensor]) -> None:
        """Rows [n, D] on the CPU, by their keys [B, 2]."""
        self._keys.append(keys)
        self._rows.extend(rows)

    def flush(self, segment: int) -> dict[str, dict[str, Any]]:
        """Write a file of what there is, durably; {its name: the facts for a header}, or nothing. OSError where it cannot be written."""
        if not self._rows:
            return {}
        name = f"states-{segment:06d}-{self.rank:05d}.safetensors"
        starts = np.concatenate([[0], np.cumsum([len(row) for row in self._rows])]).astype(np.int64)
        checks = np.array([crc32(row) for row in self._rows], dtype=np.int64)
        tables = {"keys": np.concatenate(self._keys), "starts": starts, "checks": checks}
        tensors = {name: torch.from_numpy(table.view(np.int64)) for name, table in tables.items()} | {"states": torch.cat(self._rows)}
        temporary = self.folder / f".{name}.writing"
        try:
            facts = save_tensors(tensors, temporary)
            temporary.replace(self.folder / name)
        finally:
            temporary.unlink(missing_ok=True)
        facts |= {"rows": len(self._rows), "tokens": int(starts[-1]), "tables": _tables_digest(tables)}
        self._keys, self._rows = [], []
        return {name: facts}


def crc32(states: Tensor) -> int:
    """Of a tensor's bytes."""
    return zlib.crc32(states.contiguous().view(torch.uint8).numpy().data)


def _tables_digest(tables: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name in ("keys", "starts", "checks"):
        digest.update(np.ascontiguousarray(tables[name]).tobytes())
    return digest.hexdigest()
