"""The network interface for ranks on CPUs: the one that leads to rank 0's host.

gloo announces the address that a host's own name stands for. On many machines that is 127.0.1.1, or an address of another network, and
ranks of other hosts then wait for it in vain.
"""

import os
import socket

import psutil

from launcher.errors import RankEnvironmentError

VARIABLE = "GLOO_SOCKET_IFNAME"
NEVER = ("lo", "docker", "virbr", "veth", "br-")


def choose_interface() -> str | None:
    """Set GLOO_SOCKET_IFNAME to the interface that leads to MASTER_ADDR, unless it is set or everything is on one host; what was chosen.

    Raises RankEnvironmentError for one that was set and that this host lacks.
    """
    missing = [name for name in os.environ.get(VARIABLE, "").split(",") if name and name not in psutil.net_if_addrs()]
    if missing:
        known = ", ".join(sorted(psutil.net_if_addrs()))
        raise RankEnvironmentError(f"{VARIABLE}: expected an interface of this host ({known}), got {missing[0]}; correct it, or unset it")
    if VARIABLE in os.environ or os.environ.get("WORLD_SIZE", "1") in ("1", os.environ.get("LOCAL_WORLD_SIZE")):
        return None
    chosen = interface_to(os.environ.get("MASTER_ADDR", "127.0.0.1"))
    if chosen is not None:
        os.environ[VARIABLE] = chosen
    return chosen


def interface_to(address: str) -> str | None:
    """The network interface that this host uses to reach an address; None for this host alone, or if it is not known."""
    if address in ("localhost", "::1") or address.startswith("127."):
        return None
    held = {
        entry.address: name
        for name, entries in psutil.net_if_addrs().items()
        for entry in entries
        if entry.family in (socket.AF_INET, socket.AF_INET6)
    }
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(place)  # nothing is sent: this asks for the route
            own = probe.getsockname()[0]
    except OSError:
        return None
    if not own.startswith("127.") and own != "::1":
        return held.get(own)
    up = [name for name, state in psutil.net_if_stats().items() if state.isup and not name.startswith(NEVER)]
    return up[0] if len(up) == 1 else None  # a name that stands for 127.0.1.1 on its own host
