"""The manifest of a shard folder: its shards, sidecar files, tokenizer and sources."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_shards.errors import DataError
from data_shards.storage.location import Location
from stillhouse.digests import canonical_sha256

MANIFEST = "manifest.json"
DIGEST = "digest"  # of the manifest itself; a manifest of another program may have none and is not checked
JOURNAL = ".journal.json"
TOKENIZER = "tokenizer"  # the folder of the corpus's tokenizer
FORMAT: Literal["stillhouse-shards-1"] = "stillhouse-shards-1"
SPLITS = ("train", "heldout")
Split = Literal["train", "heldout"]
Count = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ShardEntry(BaseModel):
    """One tar of consecutive documents."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^(train|heldout)-\d{6}\.tar$")]
    bytes: Count
    sha256: Sha256
    documents: Annotated[int, Field(gt=0)]
    tokens: Annotated[int, Field(gt=0)]
    """Ids of all documents, without special tokens."""


class SidecarEntry(BaseModel):
    """One file that is no shard."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: Count
    sha256: Sha256


class BuiltFrom(BaseModel):
    """The sources of the documents, and the number of documents that are not in the shards."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: dict[str, Any]
    documents_read: Count
    empty: Count
    """Documents without text, or with a text that gives no token."""
    duplicate: Count
    invalid: Count
    """Documents that were not valid UTF-8 and were skipped or repaired on request."""


class Manifest(BaseModel):
    """The content of manifest.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["stillhouse-shards-1"] = FORMAT
    splits: dict[Split, tuple[ShardEntry, ...]]
    tokenizer_fingerprint: Sha256
    vocabulary_size: Annotated[int, Field(gt=0)]
    dtype: Literal["uint8", "uint16", "uint32"]
    cls_id: Count
    sep_id: Count
    pad_id: Count
    mask_id: Count
    sidecars: dict[Annotated[str, Field(pattern=r"^[\w-][\w.-]*(/[\w-][\w.-]*)?$")], SidecarEntry]
    built_from: BuiltFrom

    @classmethod
    def load(cls, folder: str | Path | Location) -> "Manifest":
        """The manifest of a folder or URL. Raises DataError when there is none, or when it is not one."""
        location = Location.of(folder)
        where = location.where(MANIFEST)
        if not location.is_remote and not Path(where).is_file():
            if not Path(location.root).is_dir():
                raise DataError(f"{location.root}: expected a folder of shards, got no folder; build it, or correct the path")
            unfinished = (Path(location.root) / JOURNAL).exists()
            got = "a build that has not finished; run the same build again to finish it" if unfinished else "none; build the shards first"
            raise DataError(f"{where}: expected the manifest of a shard folder, got {got}")
        try:
            content = location.read(MANIFEST)
            digest = None
            with suppress(ValueError, RecursionError):  # pydantic describes content that is not JSON
                values = json.loads(content)
                if isinstance(values, dict) and DIGEST in values:
                    digest = values.pop(DIGEST)
                    content = json.dumps(values).encode()
            manifest = cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "the file"
            raise DataError(
                f"{where}: expected a manifest of format {FORMAT}, got {first['msg']} at {field}; build the shards again with this version"
            ) from None
        if digest is not None and digest != canonical_sha256(manifest.model_dump(mode="json"), ascii_only=False):
            raise DataError(f"{where}: expected the {DIGEST} of what it says, got another; bring the file back, or build the shards again")
        return manifest

    @property
    def fingerprint(self) -> str:
        """sha256 of the content of the folder. The sources are not part of it."""
        return canonical_sha256(self.model_dump(mode="json", exclude={"built_from"}), ascii_only=False)

    def entries(self, split: str) -> tuple[ShardEntry, ...]:
        """The shards of a split, in order; none for a split that got no document."""
        return next((entries for name, entries in self.splits.items() if name == split), ())

    def documents(self, split: str) -> int:
        return sum(entry.documents for entry in self.entries(split))

    def tokens(self, split: str) -> int:
        """Ids of a split's documents, special tokens not counted."""
        return sum(entry.tokens for entry in self.entries(split))

    def sidecar(self, location: Location, name: str) -> bytes:
        """A sidecar file's bytes. Raises DataError when size or sha256 are not the manifest's."""
        entry = self.sidecars.get(name)
        if entry is None:
            raise DataError(f"{location.where(name)}: expected an entry in the manifest, got none; build the shards again")
        path = location.path(name, entry.bytes, entry.sha256)
        if path.stat().st_size != entry.bytes:
            got = f"{path.stat().st_size}; bring the file back, or build the shards again"
            raise DataError(f"{location.where(name)}: expected {entry.bytes} bytes, got {got}")
        content = path.read_bytes()
        if location.is_remote and hashlib.sha256(content).hexdigest() != entry.sha256:
            content = location.path(name, entry.bytes, entry.sha256, anew=True).read_bytes()
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            advice = "bring the file back, or build the shards again"
            raise DataError(f"{location.where(name)}: expected sha256 {entry.sha256[:12]}…, got other bytes; {advice}")
        return content

    def content(self) -> bytes:
        """The bytes of manifest.json, with a digest of its content, so that a flipped bit is found."""
        values = self.model_dump(mode="json")
        values[DIGEST] = canonical_sha256(values, ascii_only=False)
        return (json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def smallest_dtype(vocabulary_size: int) -> Literal["uint8", "uint16", "uint32"]:
    """The name of the smallest unsigned dtype that holds every id below vocabulary_size."""
    return "uint8" if vocabulary_size <= 1 << 8 else "uint16" if vocabulary_size <= 1 << 16 else "uint32"
