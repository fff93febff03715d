"""FLOPs, seconds and bytes of one update of a run, by part, on one rank."""

from collections.abc import Iterable
from dataclasses import dataclass

from launcher.planning.cost.workload import BYTES, ModelSize, TeacherWork, Workload
from launcher.planning.devices.devices import Device, Measured

FORWARD_VALUES, BACKWARD_VALUES = (12, 2), (19, 4)
"""Values that a layer's GELU, sums and LayerNorms read and write per token: (times D, times F)."""
TERM_VALUES = 12
"""Values that a term on hidden states reads and writes per position, forward and backward, times D, in fp32."""
STEP_BYTES = 44
"""Bytes that an AdamW step moves per weight: gradient, master and moments read and written, norm, gradient set to zero."""


@dataclass(frozen=True)
class Compute:
    """FLOPs of an update of one rank, by part."""

    teacher: float
    forward: float
    backward: float
    head: float

    @property
    def total(self) -> float:
        """All parts."""
        return self.teacher + self.forward + self.backward + self.head


def layer_flops(size: ModelSize, window: int) -> float:
    """FLOPs per token of a forward pass through the layers: 2 per weight, and 4 S D a layer for attention."""
    return 2.0 * size.layer_weights + 4.0 * size.layers * window * size.width


def computes(teacher: TeacherWork) -> bool:
    """True if the teacher's layers run in an update."""
    return teacher.mode != "cached"


def flops(work: Workload) -> Compute:
    """FLOPs of one update on one rank. Padding is computed too."""
    batches = [(work.micro_batch, work.window)] * work.micro_batches
    return flops_of_batches(work, batches, work.logit_positions * work.micro_batches)


def flops_of_batches(work: Workload, batches: Iterable[tuple[int, int]], selected: float) -> Compute:
    """FLOPs of an update of these micro-batches. batches: (rows, positions of a row). selected: positions at which logits are computed."""
    forward = teacher = 0.0
    for rows, length in batches:
        forward += rows * length * layer_flops(work.student, length)
        teacher += rows * length * sum(layer_flops(one.size, length) for one in work.teachers if computes(one))
    transform = 2.0 * work.student.width**2
    head = selected * 3 * (2.0 * work.student.table + transform)
    head += sum(selected * 2.0 * (one.size.table + one.size.width**2) for one in work.teachers) if work.logit_terms else 0.0
    again = forward if work.checkpointing else 0.0
    return Compute(teacher, forward, 2 * forward + again, head)


def compute_seconds(work: Workload, device: Device) -> dict[str, float]:
    """Seconds of each part of an update on one rank, without collectives and data.

    A device with measured rates: by kind of operation. Others: FLOPs at the stated share of the peak, and the optimizer at the speed of
    the memory.
    """
    if device.measured is not None:
        return _measured_seconds(work, device.measured, device.bandwidth_gb * 1e9)
    parts = flops(work)
    rate = (device.peak(work.precision) or device.peak("fp32") or 1e9) * device.utilisation
    share = work.ranks if work.stage >= 1 else 1
    rates = [(device.peak(one.precision) or device.peak("fp32") or 1e9) * device.utilisation for one in work.teachers]
    teacher = parts.teacher / min(rates) if rates else 0.0
    step = STEP_BYTES * work.trainable / share / (device.bandwidth_gb * 1e9)
    return {
        "teacher": teacher,
        "forward": parts.forward / rate,
        "backward": parts.backward / rate,
        "head": parts.head / rate,
        "optimizer": step,
    }


def _measured_seconds(work: Workload, measured: Measured, bandwidth: float) -> dict[str, float]:
    positions, selected = work.positions * work.micro_batches, work.logit_positions * work.micro_batches
    forward, backward = _pass_seconds(work.student, work, work.precision, work.attention, measured)
    teacher = sum(
        _pass_seconds(one.size, work, one.precision, work.teacher_attention, measured)[0] for one in work.teachers if computes(one)
    )
    per_logit, rate, per_weight = measured.head[_known(work.precision, measured.head)]
    logits = float(selected) * work.student.vocabulary
    products = selected * 6.0 * (work.student.table + work.student.width**2)
    products += sum(selected * 2.0 * (one.size.table + one.size.width**2) for one in work.teachers) if work.logit_terms else 0.0
    head = logits * per_logit * 1e-9 + products / (rate * 1e12)
    head += work.micro_batches * work.student.table * per_weight * 1e-9 if work.logit_terms else 0.0
    share = work.ranks if work.stage >= 1 else 1
    terms = work.state_pairs * positions * TERM_VALUES * 4.0 * work.student.width / (measured.elementwise["fp32"][0] * 1e9)
    each, step = _engine_seconds(work, measured, bandwidth)
    parts = {
        "teacher": positions * teacher,
        "forward": positions * forward,
        "backward": positions * (backward + (forward if work.checkpointing else 0.0)) + work.micro_batches * each,
        "head": head,
        "loss terms": terms,
        "optimizer": work.trainable / share * step,
    }
    together = measured.together if work.ranks > 1 else 1.0
    return {name: seconds * together for name, seconds in parts.items()}


def _engine_seconds(work: Workload, measured: Measured, bandwidth: float) -> tuple[float, float]:
    """(seconds of a micro-batch whatever its tokens, seconds of a step per weight)."""
    a, table = BYTES[work.precision], work.student.table
    cost = measured.engine.get(f"{work.precision} ZeRO-{work.stage}")
    if cost is None:
        moved = (a + 8.0 + (16.0 if work.stage >= 2 else 0.0)) * work.trainable + 3.0 * a * table
        return moved / bandwidth, measured.optimizer * 1e-9
    in_layers, in_table, in_step = (
        1e-9 * _nearest({weights: values[n] for weights, values in cost.weight_ns.items()}, table) for n in range(3)
    )
    weights = work.student.parameters + work.projections
    share = work.trainable / weights
    return 1e-6 * work.student.layers * cost.layer_us + share * (in_table * table + in_layers * (weights - table)), in_step


def _pass_seconds(size: ModelSize, work: Workload, precision: str, kernel: str, measured: Measured) -> tuple[float, float]:
    """Seconds per position of a forward and of a backward pass through the layers."""
    key = _known(precision, measured.gemm)
    products = 2.0 * size.layer_weights / (_nearest(measured.gemm[key], size.width) * 1e12)
    table = measured.attention.get(f"{key} {kernel}")
    attended = work.attended(kernel) if table else work.window
    table = table or measured.attention[f"{key} sdpa"]
    value, heads = size.width / size.heads, size.layers * size.heads
    longer = max(1.0, attended / max(table))  # than what was measured: in proportion
    ahead, back = (
        heads * longer * 1e-9 * _nearest({length: length * (one[n] + value * one[n + 1]) for length, one in table.items()}, attended)
        for n in (0, 2)
    )
    values, values_back = (times_d * size.width + times_f * size.inner for times_d, times_f in (FORWARD_VALUES, BACKWARD_VALUES))
    speed, speed_back = measured.elementwise[key]
    a, beside = BYTES[key], size.layers + 1  # the embeddings' sums and LayerNorm cost no more than a layer's
    return (
        products + ahead + beside * a * values / (speed * 1e9),
        2 * products + back + beside * a * values_back / (speed_back * 1e9),
    )


def _known(precision: str, table: object) -> str:
    """The precision, or fp32 where it was not measured."""
    assert isinstance(table, dict)
    return precision if precision in table else "fp32"


def _nearest(table: dict[int, float], width: int) -> float:
    """The value at a width, linear in between, and that of the nearest beyond the ends."""
    below = max((one for one in table if one <= width), default=min(table))
    above = min((one for one in table if one >= width), default=max(table))
    if above == below:
        return table[below]
    return table[below] + (table[above] - table[below]) * (width - below) / (above - below)
