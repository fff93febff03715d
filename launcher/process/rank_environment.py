"""RANK, WORLD_SIZE, LOCAL_RANK and MASTER_PORT as a launcher (deepspeed, torchrun, srun) sets them."""

import os

from launcher.errors import RankEnvironmentError


def rank_and_world() -> tuple[int, int]:
    """(rank, number of ranks). Raises RankEnvironmentError where a variable is invalid."""
    rank, world = _number("RANK", 0), _number("WORLD_SIZE", 1)
    if rank >= world:
        raise RankEnvironmentError(
            f"RANK: expected a number below WORLD_SIZE, got {rank} and WORLD_SIZE {world}; correct them, or unset both"
        )
    _number("LOCAL_RANK", 0)
    _number("MASTER_PORT", 0)
    return rank, world


def _number(variable: str, default: int) -> int:
    """A whole number in the environment."""
    text = os.environ.get(variable, str(default))
    if not text.isdecimal():
        raise RankEnvironmentError(f"{variable}: expected a whole number in the environment, got {text!r}; correct it, or unset it")
    return int(text)
