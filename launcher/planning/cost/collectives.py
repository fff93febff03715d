"""Bytes and seconds of the collectives of an update, by ring algorithms over the slowest link.

An all-reduce of B bytes over n ranks sends 2 (n - 1) / n B from each rank, in 2 (n - 1) steps. An all-gather or reduce-scatter of B
bytes in all sends half of that.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from launcher.planning.cost.workload import BYTES, TeacherWork, Workload
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


def links_of(device: Device, ranks: int, per_node: int, precision: str = "fp32") -> Links:
    """The slowest link of a world, for values of a precision.

    Rings that cross nodes share a node's adapters; inside a node each device has its own link.
    """
    if device.measured is not None and device.measured.all_reduce is not None and ranks <= per_node:
        bf16 = device.measured.all_reduce_bf16
        seconds, rate = bf16 if precision == "bf16" and bf16 is not None else device.measured.all_reduce
        return Links(ranks, rate * 1e9, seconds / 2, "gloo on this machine")
    if ranks <= per_node:
        return Links(ranks, device.link_gb * 1e9, device.latency_us * 1e-6, "link in the node")
    rate = min(device.link_gb, device.network_gb) * 1e9
    return Links(ranks, rate, device.latency_us * 1e-6, "network" if device.network_gb < device.link_gb else "link in the node")


def update_collectives(work: Workload, device: Device, per_node: int) -> dict[str, float]:
    """Seconds of an update's collectives on a device, `per_node` ranks on a node."""
    links, half = (links_of(device, work.ranks, per_node, precision) for precision in ("fp32", "bf16"))
    measured = {} if device.measured is None else device.measured.teacher_layer_us
    return collective_seconds(work, links, half, measured)


def collective_seconds(
    work: Workload, links: Links, half: Links | None = None, layer_us: Mapping[str, float] = MappingProxyType({})
) -> dict[str, float]:
    """Seconds of an update's collectives: gradients, weights, and the teacher's gathers or sums. Nothing overlaps (overlap_comm is off).

    half: the links for values in bf16, where they differ. layer_us: measured microseconds of a teacher's layer on two ranks, by mode.
    """
    a, count = BYTES[work.precision], work.micro_batches
    own = half if half is not None and work.precision == "bf16" else links
    gradients = 4.0 * work.trainable  # communicated in fp32
    whole = a * float(work.student.parameters + work.projections)
    layers = work.student.layers
    if work.stage <= 1:
        reduce, gather = links.all_reduce(gradients), own.gather(whole) if work.stage == 1 else 0.0
    elif work.stage == 2:
        reduce, gather = count * links.all_reduce(gradients), own.gather(whole)
    else:
        passes = 3 if work.checkpointing else 2
        reduce, gather = count * links.gather(gradients, layers), count * passes * own.gather(whole, 16 * layers)
    teacher = sum(
        count * _of_teacher(work, one, half if half is not None and one.precision == "bf16" else links, layer_us) for one in work.teachers
    )
    return {"gradients": reduce, "weights": gather, "teacher gathers": teacher}


def _of_teacher(work: Workload, one: TeacherWork, links: Links, layer_us: Mapping[str, float]) -> float:
    """Seconds of a teacher's collectives in one micro-batch."""
    size = one.size
    if one.mode == "zero3":
        calls, seconds = 6 * size.layers, links.gather(BYTES[one.precision] * float(size.parameters), 6 * size.layers)
    elif one.mode == "tensor_parallel":  # every rank computes every rank's rows, with two sums of [n B, S, D] a layer
        states = BYTES[one.precision] * float(work.ranks * work.positions * size.width)
        calls, seconds = 4 * size.layers, links.all_reduce(2 * size.layers * states, 2 * size.layers)
    else:
        return 0.0
    if one.mode not in layer_us or links.ranks == 1:
        return seconds
    return seconds - calls * links.latency + 1e-6 * size.layers * layer_us[one.mode]  # measured: with the messages of two ranks
