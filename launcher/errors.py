"""What can be wrong at the doors, as one line: `where: expected what, got what; what to do`."""


class LaunchError(Exception):
    """A user's mistake or a machine's limit that launcher found; the message is the one line to print."""
