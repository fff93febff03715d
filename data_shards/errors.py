"""What can be wrong with a corpus, as one line: `where: expected what, got what; what to do`."""

from pathlib import Path

from stillhouse.errors import StillhouseError


class DataError(StillhouseError):
    """A user's mistake or a broken file that data_shards found; the message is the one line to print."""


class DamagedFile(DataError):
    """A file that is missing, cut short or altered where it is kept: a fault of the corpus, and not of the way to it.

    copy: what a remote place gave instead of the promised bytes, for a closer look.
    """

    def __init__(self, message: str, copy: Path | None = None) -> None:
        super().__init__(message)
        self.copy = copy
