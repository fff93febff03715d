"""What an unfinished build has already made durable: one small file, rewritten after each shard, gone when the manifest is there."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from data_shards.errors import DataError
from data_shards.storage.manifest import JOURNAL, ShardEntry, Split
from stillhouse.files import write_atomically


class SplitProgress(BaseModel):
    """The durable shards of one split, and the documents of the split that they stand for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shards: tuple[ShardEntry, ...] = ()
    consumed: int = 0
    """Documents of the split up to the last durable one, those that the tokenizer left nothing of among them."""
    digest: str = ""
    """Over the digests of those documents: finds out when the sources have changed since."""


class Journal(BaseModel):
    """An unfinished build of these settings with this tokenizer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: dict[str, Any]
    tokenizer_fingerprint: str
    splits: dict[Split, SplitProgress]

    @classmethod
    def load(cls, folder: Path) -> "Journal | None":
        """The journal of a folder, or None where no build has begun. Raises DataError when it is not one."""
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
        """Replace the folder's journal: whole, or not at all."""
        write_atomically(folder / JOURNAL, self.model_dump_json().encode())


def refuse_other_settings(folder: Path, before: dict[str, Any], now: dict[str, Any], what: str) -> None:
    """Raises DataError naming the first settings in which a folder's build differs from the one that is asked for."""
    old, new = _leaves(before), _leaves(now)
    differences = [f"{key} {old.get(key)!r} -> {new.get(key)!r}" for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    if differences:
        shown = "; ".join(difference[:200] for difference in differences[:3])
        raise DataError(f"{folder}: expected {what} with the same settings, got {shown}; choose another folder, or remove this one")


def _leaves(value: Any, name: str = "") -> dict[str, Any]:
    """Nested settings as one flat mapping: {"sources.0.path": …}."""
    if not isinstance(value, dict | list | tuple):
        return {name: value}
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    return {leaf: found for key, part in parts for leaf, found in _leaves(part, f"{name}.{key}" if name else str(key)).items()}
