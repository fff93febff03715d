"""RANK, WORLD_SIZE, LOCAL_RANK and MASTER_PORT as a launcher (deepspeed, torchrun, srun) sets them."""

import os
import subprocess

from launcher.errors import LaunchError, RankEnvironmentError


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


def rank_variables() -> dict[str, str]:
    """This process's RANK, WORLD_SIZE and so on in the world of several that srun or torchrun has made; empty where there is none."""
    seen = os.environ
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT"):
        several = seen.get("WORLD_SIZE", "1") != "1"
        if not seen.get(name, "" if several else "0").isdecimal():
            raise LaunchError(
                f"{name}: expected a whole number in the environment, got {seen.get(name)!r}; correct it, or unset WORLD_SIZE"
            )
    if int(seen.get("WORLD_SIZE", "1")) > 1:
        return {name: seen.get(name, "127.0.0.1") for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")}
    if int(seen.get("SLURM_STEP_NUM_TASKS", "1")) > 1 and "SLURM_PROCID" in seen:
        hosts = subprocess.run(["scontrol", "show", "hostnames", seen["SLURM_STEP_NODELIST"]], capture_output=True, text=True, check=True)
        return {
            "RANK": seen["SLURM_PROCID"],
            "LOCAL_RANK": seen["SLURM_LOCALID"],
            "WORLD_SIZE": seen["SLURM_STEP_NUM_TASKS"],
            "MASTER_ADDR": _address(hosts.stdout.split()[0]),
            "MASTER_PORT": str(20000 + int(seen["SLURM_JOB_ID"]) % 10000),
        }
    return {}


def _address(host: str) -> str:
    """A node's address as Slurm itself uses it, which may differ from what its name stands for; its name where Slurm does not say."""
    shown = subprocess.run(["scontrol", "show", "node", "-o", host], capture_output=True, text=True, check=False).stdout
    return next((word.removeprefix("NodeAddr=") for word in shown.split() if word.startswith("NodeAddr=")), host)
