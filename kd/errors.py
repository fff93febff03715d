"""Errors of models, objectives and checkpoints, as one line: `where: expected what, got what; what to do`."""

from stillhouse.errors import StillhouseError


class KdError(StillhouseError):
    """A user's mistake or a broken file that kd found; the message is the one line to print."""
