"""The plan of a run on a cluster: memory, seconds of an update by part, and what the whole run takes."""

import math
from dataclasses import dataclass, replace

from launcher.planning.cost.collectives import links_of, update_collectives
from launcher.planning.cost.fit import Fit, fit, largest_micro_batch, usable
from launcher.planning.cost.memory import MemoryPlan, plan_memory
from launcher.planning.cost.operations import compute_seconds, flops
from launcher.planning.cost.workload import TeacherWork, Workload
from launcher.planning.devices.devices import Device

READ_AHEAD_POSITIONS = 5e6
"""Positions per second that a rank's loader reads and masks on one core (docs/measurements.md, Data). It runs beside the update."""


@dataclass(frozen=True)
class Cluster:
    """Nodes of equal devices. price: of one device for an hour."""

    device: Device
    nodes: int
    per_node: int
    price: float = 0.0

    @property
    def ranks(self) -> int:
        """One a device."""
        return self.nodes * self.per_node


@dataclass(frozen=True)
class RunPlan:
    """A run on a cluster. seconds: of an update, by part; parts that wait for nothing follow each other."""

    work: Workload
    cluster: Cluster
    memory: MemoryPlan
    fit: Fit
    largest_micro_batch: int | None
    seconds: dict[str, float]
    link: str

    @property
    def update_seconds(self) -> float:
        """Seconds of one update."""
        return sum(self.seconds.values())

    @property
    def tokens_per_second(self) -> float:
        """Positions that are no padding, over all ranks."""
        return self.work.timed.tokens_per_update / self.update_seconds

    @property
    def hours(self) -> float:
        """Hours of all updates, without evaluations and checkpoints."""
        return self.work.updates * self.update_seconds / 3600

    @property
    def device_hours(self) -> float:
        """Hours times devices."""
        return self.hours * self.cluster.ranks

    @property
    def cost(self) -> float:
        """Device-hours at the given price."""
        return self.device_hours * self.cluster.price

    @property
    def kilowatt_hours(self) -> float:
        """Energy of the devices at their rated power."""
        return self.device_hours * self.cluster.device.watts / 1000

    @property
    def waiting(self) -> float:
        """The share of an update that is collectives."""
        return sum(self.seconds[name] for name in ("gradients", "weights", "teacher gathers")) / self.update_seconds

    @property
    def utilisation(self) -> float | None:
        """Model FLOPs per second over the peak: computed again activations do not count. None without a peak."""
        peak = self.cluster.device.peak(self.work.precision)
        return None if peak is None else flops(replace(self.work.timed, checkpointing=False)).total / self.update_seconds / peak


def plan_run(work: Workload, cluster: Cluster) -> RunPlan:
    """The plan of a run. work: on the cluster's number of ranks."""
    device, ranks = cluster.device, cluster.ranks
    links = links_of(device, ranks, cluster.per_node)
    timed = work.timed
    seconds = compute_seconds(timed, device) | update_collectives(timed, device, cluster.per_node)
    reading = timed.micro_batches * timed.positions / READ_AHEAD_POSITIONS
    seconds["data"] = max(0.0, reading - sum(seconds.values()))
    local = cluster.per_node if device.is_cpu else 1
    available = usable(device) // local
    return RunPlan(
        work,
        cluster,
        plan_memory(work, device),
        fit(work, device, available),
        largest_micro_batch(work, device, available),
        seconds,
        links.name,
    )


def on_ranks(work: Workload, ranks: int) -> Workload | None:
    """The same run on another number of ranks; None where the global batch does not divide over them with any micro-batch.

    The micro-batch is the largest that divides and is not larger than the run's.
    """
    share, rest = divmod(work.global_batch, ranks)
    if rest:
        return None
    micro = next(size for size in range(min(work.micro_batch, share), 0, -1) if share % size == 0)
    teachers = tuple(replace(one, elements_per_rank=held_by(one.mode, one, ranks)) for one in work.teachers)
    chunk = min(work.chunk_tokens, micro * work.window)
    return replace(work, ranks=ranks, micro_batch=micro, chunk_tokens=chunk, teachers=teachers)


def replicated(work: Workload) -> Workload:
    """The same run with whole teachers on every rank."""
    whole = [replace(one, mode="replicated", elements_per_rank=one.size.parameters) for one in work.teachers]
    return replace(work.timed, teachers=tuple(whole))


def held_by(mode: str, teacher: TeacherWork, ranks: int) -> int:
    """Weights of a teacher that a rank keeps in a mode, to the size of biases and norms."""
    size = teacher.size
    if mode == "zero3":
        return math.ceil(size.parameters / ranks)
    if mode == "tensor_parallel":
        return size.parameters - size.layer_parameters + math.ceil(size.layer_parameters / ranks)
    if mode == "cached":
        return size.parameters - size.layer_parameters
    return size.parameters
