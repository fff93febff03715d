"""Memory of one rank by part, at four moments of a run: build, update, evaluate, save. The plan is the largest of them.

On a GPU this is the device's memory. On a CPU it is the process's, which keeps freed memory (kd/kernels/host_memory.py). So what an update
needed is still there when a checkpoint is written.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from kd.kernels.host_memory import LARGEST_BLOCK
from kd.training.teaching import ROWS as LOOKED_AT
from launcher.planning.cost.workload import BYTES, TeacherWork, Workload
from launcher.planning.devices.devices import Device
from launcher.planning.memory import student_memory

PREFETCHED = 3
"""Updates whose batches are in memory: two that are loaded ahead, and the current one."""
REPORT_COPIES = 6
"""Tensors [predicted, V] in fp32 of a report line: logits, their logarithms and one distribution (kd/training/teaching.py)."""
SCORED_ROWS = 64
"""Rows of a task's teacher at a time (launcher/tasks/teachers.py)."""
TASK_PACKAGES = 130_000_000
"""Bytes of scikit-learn, scipy and a tokenizer."""
EVALUATION_CHUNK = 2048
EVALUATION_BYTES = 9
"""Bytes of each logit of an evaluation: itself and its logarithm in fp32, and whether it is above the right one."""


@dataclass(frozen=True)
class Moment:
    """One moment of a run. parts: bytes by name."""

    name: str
    parts: Mapping[str, int]

    @property
    def total(self) -> int:
        """Bytes at this moment."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class MemoryPlan:
    """The memory of one rank."""

    moments: tuple[Moment, ...]

    @property
    def peak(self) -> Moment:
        """The moment that needs most."""
        return max(self.moments, key=lambda moment: moment.total)

    def __getitem__(self, name: str) -> Moment:
        """A moment by its name."""
        return next(moment for moment in self.moments if moment.name == name)


def plan_memory(work: Workload, device: Device) -> MemoryPlan:
    """The memory of one rank on a device, at each moment."""
    fixed = {"libraries": round(device.libraries_gb * 1e9)} | _held(work, device.is_cpu)
    update = _update(work)
    if device.is_cpu:
        update["left by the start"] = _left_by_scoring(work)
    moments = [Moment("build", fixed | _build(work, device.is_cpu)), Moment("update", fixed | update)]
    kept = {"kept of the update": _kept(work, update)} if device.is_cpu else {}
    if work.evaluate_batch:
        evaluated = _evaluate_on_host(work, kept["kept of the update"]) if device.is_cpu else _evaluate(work)
        moments.append(Moment("evaluate", fixed | kept | evaluated))
        if device.is_cpu:
            kept["kept of the evaluation"] = evaluated["scores"] if _logits_block(work) <= LARGEST_BLOCK else 0
    if device.is_cpu:  # else the copies are in the host's memory
        moments.append(Moment("save", fixed | kept | _save(work, sum(kept.values()))))
    return MemoryPlan(tuple(Moment(one.name, {name: size for name, size in one.parts.items() if size}) for one in moments))


def host_bytes(work: Workload) -> int:
    """Bytes that the first rank of a GPU run needs in its host's memory: whole models while it is built, one checkpoint while it saves."""
    whole = sum(4 * one.size.parameters for one in work.teachers[:1]) + 8 * work.student.parameters
    return max(whole, _save(work)["checkpoint"])


def _held(work: Workload, on_host: bool) -> dict[str, int]:
    """Bytes that a rank holds all the time. on_host: its memory is that of the host."""
    parameters = work.student.parameters + work.projections
    student = student_memory(parameters, work.trainable, work.stage, work.precision, work.ranks)
    held = {"student: weights": student.weights, "student: masters": student.masters, "student: moments": student.moments}
    if work.stage == 3:  # DeepSpeed makes both when it starts
        held |= {"gradients": 4 * work.trainable // work.ranks, "DeepSpeed's buckets": 4 * work.trainable}
    for number, one in enumerate(work.teachers):
        name = "teacher" if len(work.teachers) == 1 else f"teacher {number}"
        held[f"{name}: weights"] = BYTES[one.precision] * one.elements_per_rank
    if work.task is not None and on_host:
        held |= {"rows": work.task.rows, "teacher: outputs": work.task.outputs, "packages of metrics": TASK_PACKAGES}
    return held


def _build(work: Workload, on_host: bool) -> dict[str, int]:
    """While the engine is made: the student's first weights in fp32, and one parameter's weight and moments whole."""
    largest = 8 * work.student.largest
    if not on_host:
        return {"largest weight with moments": largest}
    parts = {"student: first weights": 4 * (work.student.parameters + work.projections), "largest weight with moments": largest}
    for number, one in enumerate(work.teachers):  # each rank reads the whole teacher, in fp32 where the student is made of it
        in_fp32 = work.task is not None or (number == 0 and work.student_from == "teacher")
        whole = 4 if in_fp32 else BYTES[one.precision]
        over = whole * one.size.parameters - BYTES[one.precision] * one.elements_per_rank
        parts[f"teacher {number}: read whole" if number else "teacher: read whole"] = max(0, over)
    if work.task is not None and work.teachers:  # it is scored on dev before anything else
        parts["teacher: scores"] = max(_scoring(work, one) for one in work.teachers)
    return parts


def _scoring(work: Workload, one: TeacherWork) -> int:
    """Bytes of a forward pass of SCORED_ROWS rows in fp32 without gradients."""
    size = one.size
    return 4 * SCORED_ROWS * work.window * (7 * size.width + 2 * size.inner + 2 * work.window)


def _left_by_scoring(work: Workload) -> int:
    """Bytes that a process on CPUs keeps of a task's teachers: layers that were read in fp32 and freed."""
    if work.task is None or not work.teachers:
        return 0
    freed = [one for one in work.teachers if one.mode == "cached" or one.precision != "fp32"]
    return sum(4 * one.size.layer_parameters for one in freed)


def _update(work: Workload) -> dict[str, int]:
    """Bytes that an update adds: the largest micro-batch, with the gradients of the micro-batches before."""
    a, student, count = BYTES[work.precision], work.student, work.logit_positions
    gradients = 4 * work.trainable
    share = work.ranks
    if work.stage == 0:
        held, bucket = gradients, gradients if work.ranks > 1 else 0
    elif work.stage == 1:
        held, bucket = gradients, gradients + gradients // share
    else:
        held, bucket = gradients // share, gradients + gradients // share
    whole = 0
    if work.stage == 3:  # gradients are whole until the bucket is full, and reduce-scatter copies them
        held, bucket, whole = 0, 0, gradients * (2 if share > 1 else 1)
    gathered = a * student.parameters if work.stage >= 3 and work.ranks > 1 else 0
    parts = {
        "activations": work.micro_batch * work.activations.bytes(work.checkpointing),
        **({"gradients": held, "DeepSpeed's buckets": bucket} if work.stage < 3 else {"gradients: whole": whole}),
        "student: gathered": gathered,
        "attention: one layer": _eager_maps(work, work.micro_batch),
        "teacher: pass": max((_teacher_pass(work, one) for one in work.teachers), default=0),
        "head: chunks": 0,
        "loss terms": _term_bytes(work),
        "batches": 8 * 5 * work.positions * work.micro_batches * PREFETCHED,
    }
    if work.logit_terms:
        several = work.logit_positions > work.chunk_tokens
        parts["head: chunks"] = head_bytes(work)
        if work.teachers:  # a report line compares the heads on some rows, before the loss does
            rows = min(-(-LOOKED_AT // work.ranks), work.micro_batch)
            looked = round(rows * work.window * work.data.filled * work.masked)
            parts["head: chunks"] = max(parts["head: chunks"], REPORT_COPIES * 4 * looked * student.vocabulary)
        parts["head: gradient of the decoder"] = (4 if several else a) * student.table + (a * student.table if several and a < 4 else 0)
        parts["head: states"] = 5 * count * student.width * a
    parts["embedding gradient"] = a * student.table  # beside the sum, also at stage 0
    return parts


def _kept(work: Workload, update: Mapping[str, int]) -> int:
    """Bytes that a process on CPUs keeps of an update (kd/kernels/host_memory.py): all but blocks that are too large."""
    blocks = {"DeepSpeed's buckets": 4 * work.trainable, "gradients: whole": 4 * work.trainable}
    blocks["head: gradient of the decoder"] = 4 * work.student.table
    return sum(size for name, size in update.items() if blocks.get(name, 0) <= LARGEST_BLOCK)


def head_bytes(work: Workload, rows: int | None = None) -> int:
    """Bytes of the logits of one chunk of each model, and of all that the terms make of a tile of them.

    rows: of the chunk; None: those that the selected tokens of a micro-batch fill.
    """
    if not work.logit_terms:
        return 0
    rows = min(work.chunk_tokens, work.logit_positions) if rows is None else rows
    a_logit = BYTES[work.precision] + sum(BYTES[one.precision] for one in work.teachers[: work.logit_teachers])
    return work.student.vocabulary * (rows * a_logit + 4 * min(rows, work.tile_tokens) * work.logit_copies)


def _teacher_pass(work: Workload, one: TeacherWork) -> int:
    """Bytes of a teacher's forward pass without gradients: one layer's values, what terms read, and what is gathered meanwhile."""
    a, size = BYTES[one.precision], one.size
    rows = work.positions * (work.ranks if one.mode == "tensor_parallel" else 1)
    kept = a * work.positions * size.width * one.states + a * work.logit_positions * size.width
    if one.mode == "cached":
        return kept + a * work.positions * size.width
    share = work.ranks if one.mode == "tensor_parallel" else 1
    mask = a * (rows // work.window) * work.window**2
    layer = a * rows * (4 * size.width + (size.inner + size.width) // share) + mask
    gathered = a * size.largest + (a * size.table if work.logit_terms else 0) if one.mode == "zero3" and work.ranks > 1 else 0
    return max(layer, gathered) + kept


def _eager_maps(work: Workload, rows: int) -> int:
    """Bytes of one layer's attention scores with kernel eager: themselves, and in fp32 the input and the result of the softmax."""
    if work.attention != "eager":
        return 0
    copies = 8 if work.precision == "fp32" else BYTES[work.precision] + 8
    return copies * rows * work.student.heads * work.window**2


def _term_bytes(work: Workload) -> int:
    """Bytes of the terms on hidden states and attention maps, in fp32."""
    states = work.state_pairs * 3 * 4 * work.positions * work.student.width
    maps = work.relation_heads * 2 * 4 * work.positions * work.window
    return states + maps


def _evaluate(work: Workload) -> dict[str, int]:
    """A whole copy of the student, one forward pass, and the logits of the predicted positions."""
    forward, logits = _scoring_pass(work), EVALUATION_BYTES * _scored(work) * work.student.vocabulary
    return {"student: copy": BYTES[work.precision] * work.student.parameters, "scores": max(forward, logits)}


def _evaluate_on_host(work: Workload, kept: int) -> dict[str, int]:
    """The same on CPUs. The copy and the forward pass fill what is kept. Logits, and maps larger than an update's, find no place in it."""
    copy, logits = BYTES[work.precision] * work.student.parameters, EVALUATION_BYTES * _scored(work) * work.student.vocabulary
    maps = _attention_of_a_pass(work)
    larger = maps if work.evaluate_batch > work.micro_batch else 0
    return {"scores": logits + larger + max(0, copy + _scoring_pass(work) - maps - kept)}


def _scored(work: Workload) -> int:
    """Positions whose logits exist at once in an evaluation."""
    return min(EVALUATION_CHUNK, round(work.evaluate_batch * work.window * work.masked))


def _logits_block(work: Workload) -> int:
    """Bytes of the largest tensor of an evaluation."""
    return 4 * _scored(work) * work.student.vocabulary


def _scoring_pass(work: Workload) -> int:
    """Bytes of one forward pass of an evaluation."""
    a, student = BYTES[work.precision], work.student
    return a * work.evaluate_batch * work.window * (5 * student.width + 2 * student.inner) + _attention_of_a_pass(work)


def _attention_of_a_pass(work: Workload) -> int:
    """Bytes of one layer's attention in an evaluation: eager's maps, or queries, keys, values and maps of all documents."""
    if work.attention != "documents":
        return _eager_maps(work, work.evaluate_batch)
    values = 3 * work.student.width + work.student.heads * work.attended("documents")
    return BYTES[work.precision] * work.evaluate_batch * work.window * values


def _save(work: Workload, kept: int = 0) -> dict[str, int]:
    """Copies of all weights and moments, as far as they do not fit what is kept, and the file of moments that is read back."""
    weights, moments = 4 * (work.student.parameters + work.projections), 8 * work.trainable
    return {"checkpoint": max(0, weights + moments - kept), "read back": max(weights, moments)}


def with_micro_batch(work: Workload, micro_batch: int) -> Workload:
    """The same run with another micro-batch."""
    chunk = min(work.chunk_tokens, micro_batch * work.window)
    return replace(work, micro_batch=micro_batch, chunk_tokens=chunk)
