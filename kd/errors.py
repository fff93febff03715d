"""What can be wrong with a model, an objective or a checkpoint, as one line: `where: expected what, got what; what to do`."""

from stillhouse.errors import StillhouseError


class KdError(StillhouseError):
    """A user's mistake or a broken file that kd found; the message is the one line to print."""
