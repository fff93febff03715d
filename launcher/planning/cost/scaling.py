"""A run on 1 to 1,024 devices: time, cost and efficiency of each number, and the reason why more do not help."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from launcher.planning.cost.run_plan import Cluster, RunPlan, on_ranks, plan_run
from launcher.planning.cost.workload import Workload
from launcher.text import counted

COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
ENOUGH = 0.5
"""Efficiency below which more devices cost more than they bring."""


@dataclass(frozen=True)
class Scaled:
    """The run on `ranks` devices. plan None: it cannot run there, for the reason. efficiency: device-hours of the fewest over these."""

    ranks: int
    plan: RunPlan | None
    efficiency: float = 0.0
    reason: str = ""


def scale(work: Workload, cluster: Cluster) -> list[Scaled]:
    """The run on each number of devices, in nodes of at most the cluster's."""
    rows: list[Scaled] = []
    first: float | None = None
    for ranks in COUNTS:
        per_node = min(ranks, cluster.per_node)
        nodes = -(-ranks // per_node)
        spread = on_ranks(work, ranks) if nodes * per_node == ranks else None
        if spread is None:
            why = f"global_batch {work.global_batch:,} does not divide" if work.global_batch % ranks else f"no whole nodes of {per_node}"
            rows.append(Scaled(ranks, None, reason=why))
            continue
        plan = plan_run(spread, replace(cluster, nodes=nodes, per_node=per_node))
        first = plan.device_hours if first is None else first
        rows.append(Scaled(ranks, plan, first / plan.device_hours, "" if plan.fit.fits else "does not fit"))
    return rows


def limits(work: Workload, rows: Sequence[Scaled]) -> list[str]:
    """Sentences on where scaling stops, and by what."""
    name = "windows" if work.task is None else "rows"
    said = [f"global batch: {work.global_batch:,} {name} are at most {work.global_batch:,} ranks with a micro-batch of 1"]
    ran = [row for row in rows if row.plan is not None]
    slow = next((row for row in ran if row.efficiency < ENOUGH), None)
    if slow is not None and slow.plan is not None:
        parts = sorted(slow.plan.seconds.items(), key=lambda part: -part[1])
        said.append(
            f"links: from {slow.ranks:,} devices on, less than half of the devices' time is useful; the largest part of an update is "
            f"{parts[0][0]} ({parts[0][1] / slow.plan.update_seconds:.0%}), collectives are {slow.plan.waiting:.0%} ({slow.plan.link})"
        )
    elif ran:
        last = ran[-1]
        said.append(f"links: up to {last.ranks:,} devices, {last.efficiency:.0%} of the devices' time is useful")
    refused = [row for row in rows if row.plan is None]
    if refused:
        counts = f"{refused[0].ranks:,}" if len(refused) == 1 else f"{refused[0].ranks:,} to {refused[-1].ranks:,}"
        said.append(f"{counts} devices: {refused[0].reason}; choose a global batch that divides")
    if work.data.lanes and work.data.shards:
        lanes, opened = work.data.lanes, counted(min(work.data.lanes, work.data.shards), "shard")
        said.append(
            f"data: {lanes} lanes in {counted(work.data.shards, 'shard')}; beyond {lanes} ranks, several ranks read one lane, and "
            f"each host opens at most {opened} at a time"
        )
    return said
