"""Errors of a command or a run, as one line: `where: expected what, got what; what to do`."""

from stillhouse.errors import StillhouseError


class LaunchError(StillhouseError):
    """A setting, file or machine that launcher cannot use. The message is the line to print."""


class RankEnvironmentError(LaunchError):
    """RANK, WORLD_SIZE, MASTER_ADDR or MASTER_PORT is invalid, so every rank reports it."""

    every_rank_reports = True


class OutOfMemory(LaunchError):
    """An allocation failed on this rank."""

    exit_code = 4
    every_rank_reports = True


class RankLost(LaunchError):
    """Another rank died, hangs or cannot be reached. A new start continues from the last checkpoint."""

    exit_code = 76
    every_rank_reports = True


class SharedError(LaunchError):
    """An error that all ranks raise at the same time with the same message."""


class RendezvousFailed(RankLost):
    """The ranks did not connect to each other in time."""
