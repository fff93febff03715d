"""The outermost error handler of a command: one line and an exit code for a user's mistake, a traceback for a bug.

An OSError about any file is one line. `STILLHOUSE_TRACEBACK=1` shows the traceback behind every line.
"""

import argparse
import errno
import os
import platform
import sys
import traceback
from collections.abc import Callable

from launcher.process.signals import Exit
from launcher.process.standard_streams import prepare_streams, say
from launcher.redaction import redacted
from stillhouse.errors import StillhouseError

STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV)  # a disk's troubles, not a program's
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EFBIG)  # limits on a process: open files, threads, size of files


def guarded(action: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    """The exit code of the action, or of the error that ended it.

    Rank 0 prints a user's mistake. So does the first rank of every other host, because a folder may be missing on one host alone.
    """
    prepare_streams()
    os.umask(os.umask(0) | 0o002)  # what a run will read again is never writable for everyone
    try:
        return int(action(arguments))
    except StillhouseError as error:
        rank = os.environ.get("RANK", "0")
        own = error.every_rank_reports
        if rank == "0" or os.environ.get("LOCAL_RANK") == "0" or own:
            _tell(str(error), "" if rank == "0" and not own else f"rank {rank} on {platform.node()}: ")
        return error.exit_code
    except BrokenPipeError:  # whoever read what a verb prints has left
        return int(Exit.FAILED)
    except OSError as error:
        if error.errno in STORAGE:
            _tell(f"{error}; see that the disk is there and has room, and start again")
        elif error.errno in EXHAUSTED:
            _tell(f"{error}; see the limits of this shell (ulimit -a), raise them, and start again")
        elif isinstance(error.filename, str | bytes):
            got = (error.strerror or type(error).__name__).lower()
            _tell(f"{os.fsdecode(error.filename)}: expected a file or folder that can be used, got {got}; move it, or name another")
            return int(Exit.BAD_INPUT)
        else:
            _show_traceback()
        return int(Exit.FAILED)
    except MemoryError as error:
        _tell(
            f"expected more memory, got none{f' ({error})' if str(error) else ''}; see the limits of this shell (ulimit -a), and its job's"
        )
        return int(Exit.OUT_OF_MEMORY)
    except KeyboardInterrupt:
        say("stillhouse: stopped", sys.stderr)
        return 130
    except Exception as error:
        if str(error) == "can't start new thread":  # Python's words for a limit on processes, or for no memory for another stack
            _tell(f"{error}; see the limits of this shell (ulimit -a), raise them, and start again")
        else:
            _show_traceback()
        return int(Exit.FAILED)


def _tell(text: str, who: str = "") -> None:
    """The one line, without credentials and without codes for the terminal."""
    if os.environ.get("STILLHOUSE_TRACEBACK") == "1":
        _show_traceback()
    plain = (letter if letter.isprintable() or letter == "\n" else "?" for letter in redacted(text))
    say(f"stillhouse: {who}{''.join(plain)}", sys.stderr)


def _show_traceback() -> None:
    """Python's own words, without the credentials that an error may quote."""
    say(redacted(traceback.format_exc()).rstrip(), sys.stderr)
