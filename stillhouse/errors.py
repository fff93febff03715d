"""The base class of every error that a user can act on. Its message is one line: `where: expected what, got what; what to do`."""


class StillhouseError(Exception):
    """An input or a machine that cannot be used. The message is the line to print."""

    exit_code = 2
    """Exit code of the process (launcher.process.signals.Exit lists them)."""
    every_rank_reports = False
    """True: each rank prints its own message. False: the first rank of each host prints it."""


def one_line(error: BaseException) -> str:
    """The text of an exception on one line. A text of one word, such as a key, gets the exception's type in front."""
    text = " ".join(str(error).split())
    return text if " " in text else f"{type(error).__name__} {text}".strip()
