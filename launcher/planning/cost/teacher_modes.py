"""Teacher replicated, ZeRO-3, tensor parallel or cached: time, memory and disk of a run in each, and where one overtakes another."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from launcher.planning.cost.fit import usable
from launcher.planning.cost.memory import plan_memory
from launcher.planning.cost.operations import compute_seconds
from launcher.planning.cost.run_plan import Cluster, RunPlan, held_by, plan_run, replicated
from launcher.planning.cost.workload import BYTES, Workload
from launcher.text import size

MODES = ("replicated", "zero3", "tensor_parallel", "cached")


@dataclass(frozen=True)
class ModeRow:
    """A run in one mode. fill_hours: device-hours that fill the cache once; disk: bytes of the cache. refused: why it cannot run."""

    mode: str
    plan: RunPlan | None
    fill_hours: float = 0.0
    disk: int = 0
    refused: str = ""

    @property
    def device_hours(self) -> float:
        """Device-hours of one run, the cache included."""
        assert self.plan is not None
        return self.plan.device_hours + self.fill_hours


def compare_modes(work: Workload, cluster: Cluster) -> list[ModeRow]:
    """The run in each mode, all its teachers in the same one. [] without a teacher."""
    if work.task is not None and any(one.mode == "cached" for one in work.teachers):
        return []  # their outputs are computed once, so no mode computes less
    rows = []
    for mode in MODES if work.teachers else ():
        refused = _refused(work, mode)
        if refused:
            rows.append(ModeRow(mode, None, refused=refused))
            continue
        teachers = tuple(replace(one, mode=mode, elements_per_rank=held_by(mode, one, work.ranks)) for one in work.teachers)
        changed = replace(work, teachers=teachers)
        plan = plan_run(changed, cluster)
        fill = _fill_hours(work, cluster) if mode == "cached" else 0.0
        rows.append(ModeRow(mode, plan, fill, cache_bytes(work) if mode == "cached" else 0))
    return rows


def cheapest(rows: Sequence[ModeRow]) -> ModeRow | None:
    """The mode with the fewest device-hours among those that fit; the simplest of equals."""
    fitting = [row for row in rows if row.plan is not None and row.plan.fit.fits]
    return min(fitting, key=lambda row: round(row.device_hours, 6), default=None)


def cache_bytes(work: Workload) -> int:
    """Bytes of the teachers' hidden states for all windows of the run: of predicted positions alone where terms read no others."""
    share = work.data.filled * (1.0 if work.all_logits or work.state_pairs else work.masked)
    positions = work.updates * work.global_batch * work.window * share
    return round(sum(positions * one.size.width * BYTES[one.precision] for one in work.teachers))


def crossovers(work: Workload, rows: Sequence[ModeRow], cluster: Cluster) -> list[str]:
    """Sentences on where another mode becomes the cheaper one."""
    by = {row.mode: row for row in rows if row.plan is not None}
    said = []
    if "cached" in by and "replicated" in by:
        cached, replicated = by["cached"], by["replicated"]
        saved = replicated.device_hours - (cached.device_hours - cached.fill_hours)
        if saved > 0:
            runs = round(cached.fill_hours / saved, 2)
            said.append(
                f"cached: a run saves {saved:.3g} device-hours, and the cache costs {cached.fill_hours:.3g} once ({size(cached.disk)}); "
                f"it is cheaper from run {int(runs) + 1:,} on the same windows on"
            )
    said.append(_largest_teacher(work, cluster))
    if "zero3" in by and "replicated" in by:
        more = by["zero3"].device_hours / by["replicated"].device_hours
        said.append(f"zero3: {more - 1:+.1%} device-hours against replicated; it pays where replicated does not fit")
    return said


def _largest_teacher(work: Workload, cluster: Cluster) -> str:
    """The size of teacher up to which a copy on each device fits, the rest of the run as it is."""
    device = cluster.device
    memory = plan_memory(work, device)
    held = sum(count for name, count in memory.peak.parts.items() if name.startswith("teacher") and name.endswith("weights"))
    room = usable(device) // (cluster.per_node if device.is_cpu else 1) - (memory.peak.total - held)
    largest = max(0, room) // BYTES[work.teachers[0].precision]
    return (
        f"replicated: fits up to a teacher of {largest / 1e6:,.0f}M parameters at this micro-batch; beyond that, zero3 or tensor_parallel"
    )


def _refused(work: Workload, mode: str) -> str:
    if mode == "cached" and work.task is not None:
        return "a task keeps outputs instead, with teacher.cache_outputs"
    if mode == "cached" and (work.relation_heads or any(one.states > 1 for one in work.teachers)):
        return "a term reads more than the last hidden states"
    if mode == "tensor_parallel" and any(one.size.heads % work.ranks or one.size.inner % work.ranks for one in work.teachers):
        return f"{work.ranks} ranks do not divide the heads"
    return ""


def _fill_hours(work: Workload, cluster: Cluster) -> float:
    """Device-hours of the teachers' forward passes over all windows of the run."""
    return work.updates * compute_seconds(replicated(work), cluster.device)["teacher"] * cluster.ranks / 3600
