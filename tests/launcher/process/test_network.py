"""Which interface ranks of several hosts talk over; the real one is tested on the hosts of tests/slurm, whose names stand for 127.0.1.1."""

import socket
from collections import namedtuple

import psutil
import pytest

from launcher.errors import RankEnvironmentError
from launcher.process import network

Address = namedtuple("Address", "family address")
State = namedtuple("State", "isup")
INTERFACES = {"lo": "127.0.0.1", "eth0": "192.0.2.7", "docker0": "172.17.0.1"}


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A machine with these interfaces. routes: the own address towards another."""
    routes: dict[str, str] = {}

    class Probe:
        def __init__(self, *_: object) -> None:
            pass

        def __enter__(self) -> "Probe":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def connect(self, place: tuple[str, int]) -> None:
            if place[0] not in routes:
                raise OSError("unreachable")
            self.own = routes[place[0]]

        def getsockname(self) -> tuple[str, int]:
            return self.own, 1

    monkeypatch.setattr(psutil, "net_if_addrs", lambda: {name: [Address(socket.AF_INET, a)] for name, a in INTERFACES.items()})
    monkeypatch.setattr(psutil, "net_if_stats", lambda: {name: State(True) for name in INTERFACES})
    monkeypatch.setattr(socket, "getaddrinfo", lambda address, port, **_: [(socket.AF_INET, 2, 0, "", (address, port))])
    monkeypatch.setattr(socket, "socket", Probe)
    for name in ("GLOO_SOCKET_IFNAME", "LOCAL_WORLD_SIZE", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    return routes


@pytest.mark.parametrize(
    ("own", "chosen"),
    [("192.0.2.7", "eth0"), ("127.0.1.1", "eth0"), (None, None), ("198.51.100.9", None)],
    ids=["the route's", "own name is 127.0.1.1", "no route", "an address of no interface"],
)
def test_the_interface_is_the_one_that_leads_to_rank_zero(machine: dict[str, str], own: str | None, chosen: str | None):
    if own is not None:
        machine["node1"] = own
    assert network.interface_to("node1") == chosen


@pytest.mark.parametrize(
    ("environment", "chosen"),
    [
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "node1"}, "eth0"),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}, None),
        ({"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "node1"}, None),
        ({"WORLD_SIZE": "1", "MASTER_ADDR": "node1"}, None),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "node1", "GLOO_SOCKET_IFNAME": "docker0"}, None),
    ],
)
def test_it_is_chosen_for_several_hosts_and_never_against_the_users_choice(machine, monkeypatch, environment, chosen):
    machine["node1"] = "192.0.2.7"
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert network.choose_interface() == chosen


def test_an_interface_that_this_host_lacks_is_said_before_gloo_fails_on_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth0,ib7")
    with pytest.raises(
        RankEnvironmentError, match=r"GLOO_SOCKET_IFNAME: expected an interface of this host \(docker0, eth0, lo\), got ib7; correct it"
    ):
        network.choose_interface()
