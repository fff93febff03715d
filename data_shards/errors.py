"""Errors of a corpus, one line each: `where: expected what, got what; what to do`."""

from pathlib import Path

from stillhouse.errors import StillhouseError


class DataError(StillhouseError):
    """A user's mistake or a broken file. The message is the one line to print."""


class DamagedFile(DataError):
    """A file that is missing, cut short or altered in its folder. A file that cannot be reached is a DataError.

    copy: the downloaded bytes of a remote file that is not the promised one.
    """

    def __init__(self, message: str, copy: Path | None = None) -> None:
        super().__init__(message)
        self.copy = copy
