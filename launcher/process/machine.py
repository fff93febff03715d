"""The processor on which something was measured, in words."""

import os
import platform
from pathlib import Path

INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")


def processor() -> str:
    """Name, cores and the instruction sets that matter to 8-bit arithmetic."""
    name, flags = platform.machine(), set[str]()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() in ("flags", "Features"):
                flags |= set(value.split())
    except OSError:
        pass
    sets = " ".join(one for one in INSTRUCTIONS if one in flags)
    return f"{name}, {os.cpu_count()} cores" + (f", {sets}" if sets else "")
