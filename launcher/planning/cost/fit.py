"""The largest micro-batch that fits a device, and what to change where a run does not fit."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from launcher.planning.cost.memory import plan_memory, with_micro_batch
from launcher.planning.cost.workload import TeacherWork, Workload
from launcher.planning.devices.devices import Device


@dataclass(frozen=True)
class Fit:
    """Memory that a run needs and that is there.

    changes: settings that make it fit, in the order in which to set them; () if it fits, or if none of them do.
    """

    needed: int
    available: int
    changes: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """True if the planned memory is there."""
        return self.needed <= self.available

    @property
    def advice(self) -> str:
        """The end of an error line: the settings to change."""
        if not self.changes:
            return "use more ranks, a smaller student or teacher, or a device with more memory"
        return f"set {', '.join(self.changes)}"


@dataclass(frozen=True)
class MemoryNeed:
    """The planned memory of a rank of this run on this machine."""

    work: Workload
    device: Device

    @property
    def bytes(self) -> int:
        """Of the rank at its largest moment."""
        return needed(self.work, self.device)

    @property
    def before_the_first_line(self) -> int:
        """Of the moments that a run has been through at its first report line: build and update."""
        memory = plan_memory(self.work, self.device)
        return max(memory["build"].total, memory["update"].total)

    def advice(self, available: int) -> str:
        """Settings with which the run fits `available` bytes of a rank."""
        return fit(self.work, self.device, available).advice


def usable(device: Device) -> int:
    """Bytes of a device that a rank can fill."""
    return round(device.memory_gb * 1e9 * (1 - (0.0 if device.is_cpu else device.spare)))


def needed(work: Workload, device: Device) -> int:
    """Bytes of a rank at its largest moment."""
    return plan_memory(work, device).peak.total


def largest_micro_batch(work: Workload, device: Device, available: int) -> int | None:
    """The largest micro-batch that divides the global batch and fits; None if one window does not fit."""
    most = work.global_batch // work.ranks
    sizes = (size for size in range(most, 0, -1) if work.global_batch % (size * work.ranks) == 0)
    return next((size for size in sizes if needed(with_micro_batch(work, size), device) <= available), None)


def fit(work: Workload, device: Device, available: int | None = None) -> Fit:
    """The memory of a run against `available` bytes (the device's), and what to change where it does not."""
    room = usable(device) if available is None else available
    need = needed(work, device)
    if need <= room:
        return Fit(need, room, ())
    for text, changed in _alternatives(work):  # one change alone is the best advice
        if needed(changed, device) <= room:
            return Fit(need, room, (text,))
    changes: list[str] = []
    best = work
    for _ in range(6):
        options = [(needed(changed, device), text, changed) for text, changed in _alternatives(best)]
        smallest = min(options, key=lambda option: option[0], default=None)
        if smallest is None or smallest[0] >= needed(best, device):
            break
        size, text, best = smallest
        changes = [*(one for one in changes if one.partition("=")[0] != text.partition("=")[0]), text]
        if size <= room:
            return Fit(need, room, tuple(changes))
    return Fit(need, room, ())


def _alternatives(work: Workload) -> Iterator[tuple[str, Workload]]:
    """Settings that need less memory, the cheapest in time first."""
    sizes = [size for size in range(work.micro_batch - 1, 0, -1) if work.global_batch % (size * work.ranks) == 0]
    for size in sizes:
        yield f"train.micro_batch={size}", with_micro_batch(work, size)
    batch = work.evaluate_batch
    while batch > 1:
        batch //= 2
        yield f"evaluate.batch={batch}", replace(work, evaluate_batch=batch)
    for chunk in (256, 64, 16):
        if chunk < work.chunk_tokens:
            yield f"train.chunk_tokens={chunk}", replace(work, chunk_tokens=chunk)
    if work.ranks > 1:
        for stage in range(work.stage + 1, 4):
            yield f"train.zero_stage={stage}", replace(work, stage=stage)
    if not work.checkpointing:
        yield "train.activation_checkpointing=true", replace(work, checkpointing=True)
    if work.ranks > 1 and any(one.mode == "replicated" for one in work.teachers):
        yield "teacher.mode=zero3", replace(work, teachers=tuple(as_zero3(one, work.ranks) for one in work.teachers))
    if work.precision == "fp32":
        others = tuple(replace(one, precision="bf16") for one in work.teachers)
        yield "train.precision=bf16", replace(work, precision="bf16", stage=max(1, work.stage), teachers=others)


def as_zero3(teacher: TeacherWork, ranks: int) -> TeacherWork:
    """A replicated teacher, split over the ranks."""
    if teacher.mode != "replicated":
        return teacher
    return replace(teacher, mode="zero3", elements_per_rank=-(-teacher.size.parameters // ranks))
