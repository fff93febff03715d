"""The store at which ranks meet. Rank 0 listens on the address of MASTER_ADDR alone; torch would listen on every interface.

What is exposed, and to whom: docs/security.md. torchrun's own meeting point is torchrun's.
"""

import ipaddress
import os
import socket
import sys
from datetime import timedelta

import torch.distributed as dist


def store(rank: int, world_size: int, timeout: timedelta) -> dist.Store | None:
    """The store that all ranks meet at; None where it is torch's own affair: one rank, or torchrun.

    Every rank decides alike where it matters: those that connect need not know on which interface rank 0 listens.
    """
    if world_size == 1 or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        return None
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if stays_here(address) and sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all ranks are on this host: nothing need be seen from outside
    if rank != 0:
        return dist.TCPStore(address, port, world_size, is_master=False, timeout=timeout)
    listening = listen(address, port)
    if listening is None:
        return dist.TCPStore(address, port, world_size, is_master=True, timeout=timeout)
    descriptor = listening.detach()  # the store closes it
    return dist.TCPStore(address, port, world_size, is_master=True, timeout=timeout, master_listen_fd=descriptor)


def stays_here(address: str) -> bool:
    """True if an address can only mean this host. A host's own name often resolves to 127.0.1.1 here and to more elsewhere."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def listen(address: str, port: int) -> socket.socket | None:
    """A socket that listens on one address; None where that is not an address of this host, or is a name for the loopback."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
    except OSError:
        return None
    if ipaddress.ip_address(str(place[0]).partition("%")[0]).is_loopback and not stays_here(address):
        return None
    listening = socket.socket(family, kind, protocol)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(place)
        listening.listen(2048)
    except OSError:
        listening.close()
        return None
    return listening
