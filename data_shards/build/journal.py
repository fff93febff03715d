"""The journal of an unfinished build: its durable shards, in one small file that is rewritten after each shard and removed at the end."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from data_shards.errors import DataError
from data_shards.storage.manifest import JOURNAL, ShardEntry, Split
from stillhouse.files import write_atomically


class SplitProgress(BaseModel):
    """The durable shards of one split, and the number of documents in them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shards: tuple[ShardEntry, ...] = ()
    consumed: int = 0
    """Documents of the split up to the last durable one. Those without tokens are counted too."""
    digest: str = ""
    """sha256 over the digests of those documents. It differs when the sources have changed."""


class Journal(BaseModel):
    """An unfinished build with these settings and this tokenizer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: dict[str, Any]
    tokenizer_fingerprint: str
    splits: dict[Split, SplitProgress]

    @classmethod
    def load(cls, folder: Path) -> "Journal | None":
        """The journal of a folder, or None before a build. Raises DataError when it is not one."""
        path = folder / JOURNAL
        if not path.exists():
            return None
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise DataError(
                f"{path}: expected a build's journal, got {error.errors()[0]['msg']}; remove the folder and build again"
            ) from None

    def save(self, folder: Path) -> None:
        """Replace the folder's journal atomically."""
        write_atomically(folder / JOURNAL, self.model_dump_json().encode())
