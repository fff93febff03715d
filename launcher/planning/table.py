"""A plan as a table of two columns."""

from collections.abc import Iterable, Iterator

from rich import box
from rich.console import Console
from rich.table import Table

from launcher.planning.cost.memory import MemoryPlan
from launcher.planning.phases import phase_rows
from launcher.planning.plan import Plan
from launcher.tables import PlainConsole
from launcher.text import counted, size


def memory_rows(memory: MemoryPlan) -> Iterator[tuple[str, str]]:
    """The planned memory of a rank: its largest moment by part, and the total of the others."""
    peak = memory.peak
    parts = sorted(peak.parts.items(), key=lambda part: -part[1])
    listed = ", ".join(f"{name} {size(count)}" for name, count in parts)
    others = ", ".join(f"{moment.name} {size(moment.total)}" for moment in memory.moments if moment is not peak)
    yield "memory of a rank", f"{size(peak.total)} at most, at the moment '{peak.name}' ({listed}); {others}"


def show_plan(plan: Plan, console: Console | None = None) -> None:
    """Print a plan as a table of two columns."""
    show_rows(rows(plan), console)


def show_rows(pairs: Iterable[tuple[str, str]], console: Console | None = None) -> None:
    """Print names and values as a table of two columns."""
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    for name, value in pairs:
        table.add_row(name, value)
    (console or PlainConsole()).print(table)


def rows(plan: Plan) -> Iterator[tuple[str, str]]:
    """The plan in words, a line at a time."""
    forward = " x ".join(
        (counted(plan.ranks, "rank"), counted(plan.micro_batches, "micro-batch", "micro-batches"), counted(plan.micro_batch, "window"))
    )
    yield "an update", f"{forward} = {counted(plan.windows_per_update, 'window')}, {counted(round(plan.tokens_per_update), 'token')}"
    amount = f"{counted(plan.windows, 'window')}, {counted(plan.tokens, 'token')}"
    yield "the run", f"{counted(plan.updates, 'update')} ({plan.warmup_updates:,} of warm-up), {amount}"
    yield from phase_rows(plan.phases)
    yield (
        "the corpus",
        f"{counted(plan.windows_per_epoch, 'window')}, read {plan.epochs:.3g} time{'' if f'{plan.epochs:.3g}' == '1' else 's'}; "
        f"{counted(plan.heldout_windows, 'held-out window')} scored",
    )
    beside = f", {plan.projections:,} more in projections" if plan.projections else ""
    trains = "" if plan.trainable == plan.student_parameters + plan.projections else f", {plan.trainable:,} of them trained"
    yield "precision", f"{plan.precision}: {plan.precision_reason}"
    yield "student", f"{counted(plan.student_layers, 'layer')}, {plan.student_parameters:,} parameters{beside}{trains}"
    if not plan.teachers:
        yield "teacher", "none"
    for number, teacher in enumerate(plan.teachers):
        which = f"teacher {number}" if len(plan.teachers) > 1 else "teacher"
        pays = ", which pays from the second run with this data.seed" if teacher.mode == "cached" else ""
        yield which, f"{teacher.parameters:,} parameters, {size(teacher.bytes)}, {teacher.mode}{pays}"
        yield f"a rank holds: {which}", size(teacher.bytes_per_rank)
    kinds = f"weights {size(plan.memory.weights)}, gradients {size(plan.memory.gradients)}"
    masters = f"masters {size(plan.memory.masters)}, moments {size(plan.memory.moments)}"
    yield "a rank holds: student", f"{size(plan.memory.total)} in {plan.precision}, ZeRO-{plan.zero_stage} ({kinds}, {masters})"
    yield "a rank holds: logits", f"{size(plan.logits_bytes)} at most, {plan.work.chunk_tokens} tokens at a time"
    yield from memory_rows(plan.peak)
    yield "a checkpoint", size(plan.checkpoint_bytes)
    yield "disk", f"{size(plan.disk_needed)} needed, {size(plan.disk_free)} free"
