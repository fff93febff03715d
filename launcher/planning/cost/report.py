"""A plan as text for people, and as JSON."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console

from launcher.planning.cost.from_config import Planned
from launcher.planning.cost.operations import flops
from launcher.planning.cost.run_plan import RunPlan
from launcher.planning.cost.scaling import Scaled, limits
from launcher.planning.cost.teacher_modes import ModeRow, cheapest, crossovers
from launcher.planning.table import memory_rows, show_rows
from launcher.tables import Column, print_table
from launcher.text import counted, duration, size

FORMAT = "stillhouse plan 1"


def show(planned: Planned, plan: RunPlan, rows: Sequence[Scaled], modes: Sequence[ModeRow], console: Console) -> None:
    """Print a plan."""
    show_rows(_rows(planned, plan), console)
    _show_scaling(plan, rows, console)
    for sentence in limits(planned.work, rows):
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    if modes:
        _show_modes(planned, plan, modes, console)


def _rows(planned: Planned, plan: RunPlan) -> Iterator[tuple[str, str]]:
    work, timed, cluster = planned.work, planned.work.timed, plan.cluster
    device = cluster.device
    kind = "measured rates" if device.measured else "an estimate"
    yield "devices", f"{counted(cluster.nodes, 'node')} x {cluster.per_node} {device.name}; {kind}: {device.source}"
    name = "windows" if work.task is None else "rows"
    forward = f"{counted(work.ranks, 'rank')} x {counted(work.micro_batches, 'micro-batch', 'micro-batches')} x {work.micro_batch}"
    tokens = f"{name} of {timed.window} = {timed.tokens_per_update:,.0f} tokens"
    yield "an update", f"{forward} {tokens}; {work.precision}, ZeRO-{work.stage}"
    yield from memory_rows(plan.memory)
    room = f"{size(plan.fit.needed)} of {size(plan.fit.available)}"
    yield "fits", f"yes, {room}" if plan.fit.fits else f"no, {room}: {plan.fit.advice}"
    largest = plan.largest_micro_batch
    yield "largest micro-batch", f"not even 1 {name[:-1]} fits" if largest is None else counted(largest, name[:-1])
    parts = ", ".join(f"{name} {_seconds(value)}" for name, value in plan.seconds.items() if value > 0)
    yield "time of an update", f"{_seconds(plan.update_seconds)}: {parts}"
    rate = f"{plan.tokens_per_second:,.0f} tokens/s"
    used = "" if plan.utilisation is None else f", {plan.utilisation:.0%} of the peak"
    yield "speed", f"{rate}, {flops(timed).total * work.ranks / 1e12:,.3g} TFLOP an update{used}"
    yield "the run", f"{counted(work.updates, 'update')}: {duration(plan.hours * 3600)}, {plan.device_hours:,.4g} device-hours"
    if cluster.price:
        yield "cost", f"{plan.cost:,.2f} at {cluster.price:g} a device-hour"
    if device.watts:
        yield "energy", f"{plan.kilowatt_hours:,.4g} kWh of the devices at their rated {device.watts:g} W"
    kept = f"{planned.checkpoints} x {size(planned.checkpoint_bytes)}"
    data = f"{'shards' if work.task is None else 'texts'} {size(planned.shard_bytes)}"
    yield "disk", f"{data}, checkpoints and student {size(planned.disk_bytes)} ({kept})"
    for note in planned.notes:
        yield "note", note


def _show_scaling(plan: RunPlan, rows: Sequence[Scaled], console: Console) -> None:
    def cells(value: str) -> list[str]:
        made = []
        for row in rows:
            one = row.plan
            made.append("-" if one is None else _cell(value, row, one))
        return made

    columns = [
        Column("micro", cells("micro"), "windows of a micro-batch, at most the run's"),
        Column("update", cells("update"), "seconds of an update"),
        Column("tokens/s", cells("rate")),
        Column("time", cells("time"), "of the whole run"),
        Column("hours", cells("hours"), "device-hours"),
        *([Column("cost", cells("cost"))] if plan.cluster.price else []),
        Column("useful", cells("useful"), "device-hours of the fewest devices over these"),
        Column("links", cells("links"), "share of an update that is collectives"),
        Column("memory", cells("memory"), "of a rank; ! if it does not fit"),
    ]
    print_table(console, Column("devices", [f"{row.ranks:,}" for row in rows], justify="right"), columns)


def _cell(value: str, row: Scaled, plan: RunPlan) -> str:
    return {
        "micro": str(plan.work.micro_batch),
        "update": f"{plan.update_seconds:.3g}",
        "rate": f"{plan.tokens_per_second:,.0f}",
        "time": duration(plan.hours * 3600),
        "hours": f"{plan.device_hours:,.4g}",
        "cost": f"{plan.cost:,.0f}",
        "useful": f"{row.efficiency:.0%}",
        "links": f"{plan.waiting:.0%}",
        "memory": size(plan.fit.needed) + ("" if plan.fit.fits else " !"),
    }[value]


def _show_modes(planned: Planned, plan: RunPlan, modes: Sequence[ModeRow], console: Console) -> None:
    def cells(text: str) -> list[str]:
        made = []
        for row in modes:
            if row.plan is None:
                made.append("-")
                continue
            made.append(
                {
                    "update": f"{row.plan.update_seconds:.3g}",
                    "hours": f"{row.device_hours:,.4g}",
                    "memory": size(row.plan.fit.needed) + ("" if row.plan.fit.fits else " !"),
                    "disk": size(row.disk) if row.disk else "0",
                }[text]
            )
        return made

    columns = [
        Column("update", cells("update"), "seconds of an update"),
        Column("hours", cells("hours"), "device-hours of one run, filling the cache included"),
        Column("memory", cells("memory"), "of a rank; ! if it does not fit"),
        Column("disk", cells("disk"), "of the cache"),
    ]
    print_table(console, Column("teacher", [row.mode for row in modes], justify="left"), columns)
    for row in modes:
        if row.refused:
            console.print(f"{row.mode}: cannot run: {row.refused}", markup=False, highlight=False)
    best = cheapest(modes)
    text = "no mode fits" if best is None else f"cheapest for this run: {best.mode}"
    for sentence in (text, *crossovers(planned.work, modes, plan.cluster)):
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def as_json(planned: Planned, plan: RunPlan, rows: Sequence[Scaled], modes: Sequence[ModeRow]) -> dict[str, Any]:
    """A plan as plain values. Bytes, seconds, hours."""
    best = cheapest(modes)
    return {
        "format": FORMAT,
        "device": plan.cluster.device.model_dump(mode="json", exclude_none=True),
        "estimate": plan.cluster.device.measured is None,
        "nodes": plan.cluster.nodes,
        "devices_per_node": plan.cluster.per_node,
        "precision": planned.work.precision,
        "zero_stage": planned.work.stage,
        **_numbers(plan),
        "memory": {moment.name: dict(moment.parts) for moment in plan.memory.moments},
        "changes": list(plan.fit.changes),
        "largest_micro_batch": plan.largest_micro_batch,
        "seconds": plan.seconds,
        "updates": planned.work.updates,
        "disk": {"shards": planned.shard_bytes, "checkpoints": planned.disk_bytes},
        "scaling": [
            {"devices": row.ranks, "useful": row.efficiency, **({"refused": row.reason} if row.plan is None else _numbers(row.plan))}
            for row in rows
        ],
        "limits": limits(planned.work, rows),
        "teacher_modes": [
            {"mode": row.mode, "refused": row.refused}
            if row.plan is None
            else {"mode": row.mode, "device_hours_with_cache": row.device_hours, "cache_bytes": row.disk, **_numbers(row.plan)}
            for row in modes
        ],
        "cheapest_mode": None if best is None else best.mode,
        "crossovers": crossovers(planned.work, modes, plan.cluster) if modes else [],
        "notes": list(planned.notes),
    }


def _numbers(plan: RunPlan) -> dict[str, Any]:
    return {
        "micro_batch": plan.work.micro_batch,
        "fits": plan.fit.fits,
        "memory_bytes": plan.fit.needed,
        "available_bytes": plan.fit.available,
        "update_seconds": plan.update_seconds,
        "tokens_per_second": plan.tokens_per_second,
        "hours": plan.hours,
        "device_hours": plan.device_hours,
        "cost": plan.cost,
        "kilowatt_hours": plan.kilowatt_hours,
        "collectives_share": plan.waiting,
        "utilisation": plan.utilisation,
    }


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"
