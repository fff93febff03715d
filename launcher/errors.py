"""What can be wrong at the doors, as one line: `where: expected what, got what; what to do`."""


class LaunchError(Exception):
    """A user's mistake or a machine's limit that launcher found; the message is the one line to print."""

    code = 2
    """What the process leaves with (see launcher.signals.Exit)."""
    every_rank_speaks = False
    """Whether each rank has its own to say; else the first of each host speaks for all."""


class NoPlace(LaunchError):
    """What a launcher left in this process's environment makes no sense, so that nobody else can be trusted to say it."""

    every_rank_speaks = True


class OutOfMemory(LaunchError):
    """An allocation failed on this rank."""

    code = 4
    every_rank_speaks = True


class RankLost(LaunchError):
    """Another rank has died, hangs, or cannot be reached; starting again goes on from the last checkpoint."""

    code = 76
    every_rank_speaks = True


class Agreed(LaunchError):
    """Every rank raises this one with the same words at the same time: none has to be told."""


class NotMet(RankLost):
    """The ranks did not find each other."""
