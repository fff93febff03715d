"""The cursor of a run: the whole state of its stream."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from data_shards.errors import DataError


@dataclass(frozen=True)
class Cursor:
    """A run's progress: `windows` rows were consumed by updates, from the stream with this fingerprint."""

    windows: int
    fingerprint: str

    def as_dict(self) -> dict[str, int | str]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Cursor":
        """The inverse of as_dict. Raises DataError for other values."""
        if not isinstance(values, Mapping):
            raise DataError(f"cursor: expected windows and fingerprint, got {type(values).__name__}; the checkpoint is of another version")
        windows, fingerprint = values.get("windows"), values.get("fingerprint")
        if set(values) != {"windows", "fingerprint"} or type(windows) is not int or windows < 0 or not isinstance(fingerprint, str):
            raise DataError(f"cursor: expected windows and fingerprint, got {dict(values)}; the checkpoint is of another version")
        return cls(windows, fingerprint)
