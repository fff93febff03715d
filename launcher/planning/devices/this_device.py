"""The device of this process: the memory that is there, as a Device of the planner."""

from pathlib import Path

import psutil
import torch

from kd.distributed import process_group
from launcher.planning.devices.devices import DEVICES, Device

GROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def this_device() -> Device:
    """The first GPU, or the host. Rates are those of no datasheet: only the memory is this machine's."""
    if process_group.device().type == "cuda":
        facts = torch.cuda.get_device_properties(process_group.device())
        return DEVICES["h100"].model_copy(
            update={"name": facts.name, "memory_gb": facts.total_memory / 1e9, "source": "torch's properties of the device"}
        )
    return DEVICES["cpu"].model_copy(update={"name": "this host", "memory_gb": host_memory() / 1e9})


def host_memory() -> int:
    """Bytes that a new process may use here: free memory, within the limit of a container or job."""
    facts = psutil.virtual_memory()
    limit = group_limit()
    return int(facts.available if limit is None else min(facts.available, limit))


def group_limit() -> int | None:
    """Bytes that a container or a Slurm step may use, if it is limited."""
    for path in GROUPS:
        try:
            text = Path(path).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdecimal() and int(text) < 1 << 60:
            return int(text)
    return None
