"""Bytes and seconds of the collectives of an update, by ring algorithms over the slowest link.

An all-reduce of B bytes over n ranks sends 2 (n - 1) / n B from each rank, in 2 (n - 1) steps. An all-gather or reduce-scatter of B
bytes in all sends half of that.
"""

from dataclasses import dataclass

from launcher.planning.cost.workload import BYTES, Workload
from launcher.planning.devices.devices import Device


@dataclass(frozen=True)
class Links:
    """Bytes per second and seconds per step of the slowest link between `ranks` ranks, `per_node` of them on a node."""

    ranks: int
    rate: float
    latency: float
    name: str

    def all_reduce(self, size: float, calls: int = 1) -> float:
        """Seconds of `calls` all-reduces of `size` bytes together."""
        return 2 * self.gather(size, calls)

    def gather(self, size: float, calls: int = 1) -> float:
        """Seconds of `calls` all-gathers or reduce-scatters, of `size` bytes together when whole."""
        if self.ranks == 1:
            return 0.0
        n = self.ranks
        return (n - 1) / n * size / self.rate + calls * (n - 1) * self.latency


def links_of(device: Device, ranks: int, per_node: int) -> Links:
    """The slowest link of a world. Rings that cross nodes share a node's adapters; inside a node each device has its own link."""
    if device.measured is not None and device.measured.all_reduce is not None and ranks <= per_node:
        seconds, rate = device.measured.all_reduce
        return Links(ranks, rate * 1e9, seconds / 2, "gloo on this machine")
    if ranks <= per_node:
        return Links(ranks, device.link_gb * 1e9, device.latency_us * 1e-6, "link in the node")
    rate = min(device.link_gb, device.network_gb) * 1e9
    return Links(ranks, rate, device.latency_us * 1e-6, "network" if device.network_gb < device.link_gb else "link in the node")


def collective_seconds(work: Workload, links: Links) -> dict[str, float]:
    """Seconds of an update's collectives: gradients, weights, and the teacher's gathers or sums. Nothing overlaps (overlap_comm is off)."""
    a, count = BYTES[work.precision], work.micro_batches
    gradients = 4.0 * work.trainable  # communicated in fp32
    whole = a * float(work.student.parameters + work.projections)
    layers = work.student.layers
    if work.stage <= 1:
        reduce, gather = links.all_reduce(gradients), links.gather(whole) if work.stage == 1 else 0.0
    elif work.stage == 2:
        reduce, gather = count * links.all_reduce(gradients), links.gather(whole)
    else:
        passes = 3 if work.checkpointing else 2
        reduce, gather = count * links.gather(gradients, layers), count * passes * links.gather(whole, 16 * layers)
    teacher = 0.0
    for one in work.teachers:
        bytes_each = BYTES[one.precision]
        if one.mode == "zero3":
            teacher += count * links.gather(bytes_each * float(one.size.parameters), 6 * one.size.layers)
        if one.mode == "tensor_parallel":  # every rank computes every rank's rows, with two sums of [n B, S, D] a layer
            states = bytes_each * float(work.ranks * work.positions * one.size.width)
            teacher += count * links.all_reduce(2 * one.size.layers * states, 2 * one.size.layers)
    return {"gradients": reduce, "weights": gather, "teacher gathers": teacher}
