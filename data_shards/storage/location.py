"""The location of a shard folder: a folder of this machine, or a URL whose files are copied once into a cache folder."""

import os
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from data_shards.errors import DamagedFile, DataError
from data_shards.storage.download import MOST_BYTES, download, is_url, read_url, with_retries
from stillhouse.errors import one_line


@dataclass(frozen=True)
class Location:
    """A shard folder: a path, or a URL with the cache folder for its copies."""

    root: str
    cache_folder: str | None = None

    @classmethod
    def of(cls, folder: "str | Path | Location", cache_folder: str | Path | None = None) -> "Location":
        """The location of a path or URL as a user writes it."""
        if isinstance(folder, Location):
            return folder
        root = str(folder).removeprefix("file://").rstrip("/") or "/"
        return cls(root, None if cache_folder is None else str(cache_folder))

    @property
    def is_remote(self) -> bool:
        return is_url(self.root)

    def where(self, name: str) -> str:
        """The path or URL of a file of this folder. The query of a URL stays behind the name."""
        before, mark, query = self.root.partition("?") if self.is_remote else (self.root, "", "")
        return f"{before.rstrip('/')}/{name}{mark}{query}" if mark else f"{self.root}/{name}"

    def read(self, name: str) -> bytes:
        """A small file, whole. Raises DataError when it is absent or unreadable."""
        if self.is_remote:
            return with_retries(lambda: read_url(self.where(name)), self.where(name))
        try:
            with open(self.where(name), "rb") as file:
                size = min(os.fstat(file.fileno()).st_size, MOST_BYTES)
                content = file.read(size + 1)  # Python allocates this many bytes first
            if len(content) > MOST_BYTES:
                raise DataError(f"{self.where(name)}: expected at most {MOST_BYTES:,} bytes, got more; is it the right file?")
            return content
        except FileNotFoundError:
            raise DataError(f"{self.where(name)}: expected a file, got none; check the folder") from None
        except OSError as error:
            raise DataError(f"{self.where(name)}: expected a readable file, got {one_line(error)}; check its permissions") from None

    def path(self, name: str, size: int, sha256: str, *, anew: bool = False) -> Path:
        """The path of a file on this machine; a remote file is copied first.

        A new copy is checked against size and sha256, an earlier one against its size only. `anew` replaces an earlier copy.
        Raises DamagedFile when the file is missing or a remote one is not the promised one, DataError when it cannot be reached.
        """
        if not self.is_remote:
            path = Path(self.where(name))
            if not path.is_file():
                if not Path(self.root).is_dir():
                    raise DataError(f"{self.root}: expected the folder of {name}, got no folder; is its disk mounted?")
                raise DamagedFile(f"{path}: expected a file of {size} bytes, got none; bring it back, or build the shards again")
            return path
        if self.cache_folder is None:
            raise DataError(f"{self.root}: expected a cache folder for the copies of remote shards, got none; set data.cache_folder")
        copy = Path(self.cache_folder) / sha256[:16] / name
        try:
            copy.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(copy.with_name(f".{copy.name}.lock")):
                if anew:
                    copy.unlink(missing_ok=True)
                if not copy.is_file() or copy.stat().st_size != size:
                    with_retries(lambda: download(self.where(name), copy, size, sha256), self.where(name))
        except OSError as error:
            raise DataError(f"{copy}: expected a cache folder that can be written, got {one_line(error)}; choose another") from None
        return copy
