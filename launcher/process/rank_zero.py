"""Work of rank 0 with the same outcome on every rank: all continue, or all raise the same error."""

from collections.abc import Callable
from typing import Any

from kd.distributed import process_group
from launcher.errors import SharedError
from stillhouse.errors import StillhouseError


def on_rank_zero(action: Callable[[], Any]) -> Any:
    """Run the action on rank 0 and return its result there, None on other ranks. Collective.

    Raises SharedError on every rank where the action raises StillhouseError or OSError: without it the other ranks would wait.
    """
    result, message = None, ""
    if process_group.rank() == 0:
        try:
            result = action()
        except (StillhouseError, OSError) as error:
            message = str(error) or type(error).__name__
    message = process_group.from_rank_zero(message)
    if message:
        raise SharedError(message)
    return result
