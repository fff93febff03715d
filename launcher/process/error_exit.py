"""What a door does with what goes wrong: a user's mistake or a machine's trouble is one line and a code; a bug of ours is a traceback.

A file that cannot be used is a user's affair where its path is one that they have given: on the command line, in the file named there, or
in the environment (the folders of PLACES). About any other path Python's own words are worth more; `STILLHOUSE_TRACEBACK=1` always
shows them.
"""

import argparse
import errno
import os
import platform
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from launcher.process.signals import Exit
from launcher.process.standard_streams import prepare_streams, say
from launcher.redaction import redacted
from stillhouse.errors import StillhouseError
from stillhouse.files import ROOT

STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV)  # a disk's troubles, not a program's
MISPLACED = (errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EEXIST, errno.EACCES, errno.EPERM)  # a user's paths
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EFBIG)  # limits on a process: open files, threads, size of files
PLACES = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "HF_HOME", "STILLHOUSE_CACHE", "STILLHOUSE_LOGS")
MAX_BYTES = 1 << 20  # of a file that is searched for paths


def guarded(action: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    """The action's exit code, or that of what ended it.

    Rank 0 says what a user did wrong, and the first rank of every other host, because a folder may be missing there alone.
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
        if error.errno in MISPLACED and _is_the_users(error.filename, arguments):
            got = (error.strerror or str(error)).lower()
            _tell(f"{error.filename}: expected a file or folder that can be used, got {got}; move it, or name another")
            return int(Exit.BAD_INPUT)
        if error.errno in STORAGE:
            _tell(f"{error}; see that the disk is there and has room, and start again")
        elif error.errno in EXHAUSTED:
            _tell(f"{error}; see the limits of this shell (ulimit -a), raise them, and start again")
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


def _is_the_users(filename: Any, arguments: argparse.Namespace) -> bool:
    """Whether a path lies in, or leads to, one that the user has given."""
    if not isinstance(filename, str):
        return False
    place = Path(os.path.abspath(filename))
    ours = (ROOT, Path(sys.prefix))
    given = {Path(os.path.abspath(word)) for word in _words(arguments)}
    if not any(place.is_relative_to(path) for path in ours):
        given |= {Path(os.path.abspath(os.environ[name])) for name in PLACES if os.environ.get(name)} | {Path(tempfile.gettempdir())}
    return any(place.is_relative_to(path) or path.is_relative_to(place) for path in given if path != Path(path.anchor))


def _words(arguments: Any) -> Iterator[str]:
    """Everything that may be a path: the command line's words, the values of its key=value, and what the file of --config names."""
    values = list(vars(arguments).values()) if isinstance(arguments, argparse.Namespace) else []
    words = [word for value in values for word in (value if isinstance(value, list | tuple) else [value]) if isinstance(word, str) and word]
    for word in words:
        yield word
        yield word.partition("=")[2] or word
    config = getattr(arguments, "config", None)
    if isinstance(config, str):
        for file in (Path(config), ROOT / "configs" / f"{config}.yaml"):
            if file.is_file():
                with file.open(errors="replace", encoding="utf-8") as opened:
                    yield from re.findall(r"[^\s'\"{}\[\],]+", opened.read(MAX_BYTES))
