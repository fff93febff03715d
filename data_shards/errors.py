"""What can be wrong with a corpus, as one line: `where: expected what, got what; what to do`."""


class DataError(Exception):
    """A user's mistake or a broken file that data_shards found; the message is the one line to print."""
