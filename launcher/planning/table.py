"""A plan as a table of two columns."""

from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.table import Table

from launcher.planning.phases import phase_rows
from launcher.planning.plan import Plan
from launcher.reporting.console import size


def show_plan(plan: Plan, console: Console | None = None) -> None:
    """Print a plan as a table of two columns."""
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    for name, value in rows(plan):
        table.add_row(name, value)
    (console or Console()).print(table)


def rows(plan: Plan) -> Iterator[tuple[str, str]]:
    """The plan in words, a line at a time."""
    ranks = "1 rank" if plan.ranks == 1 else f"{plan.ranks} ranks"
    forward = f"{ranks} x {plan.micro_batches} micro-batches x {plan.micro_batch} windows"
    yield "an update", f"{forward} = {plan.windows_per_update:,} windows, {plan.tokens_per_update:,.0f} tokens"
    yield "the run", f"{plan.updates:,} updates ({plan.warmup_updates:,} of warm-up), {plan.windows:,} windows, {plan.tokens:,} tokens"
    yield from phase_rows(plan.phases)
    yield (
        "the corpus",
        f"{plan.windows_per_epoch:,} windows, read {plan.epochs:.3g} times; {plan.heldout_windows:,} held-out windows scored",
    )
    beside = f", {plan.projections:,} more in projections" if plan.projections else ""
    trains = "" if plan.trainable == plan.student_parameters + plan.projections else f", {plan.trainable:,} of them trained"
    yield "student", f"{plan.student_layers} layers, {plan.student_parameters:,} parameters{beside}{trains}"
    if not plan.teachers:
        yield "teacher", "none"
    for number, teacher in enumerate(plan.teachers):
        which = f"teacher {number}" if len(plan.teachers) > 1 else "teacher"
        yield which, f"{teacher.parameters:,} parameters, {size(teacher.bytes)}, {teacher.mode}"
        yield f"a rank holds: {which}", size(teacher.bytes_per_rank)
    kinds = f"weights {size(plan.memory.weights)}, gradients {size(plan.memory.gradients)}"
    masters = f"masters {size(plan.memory.masters)}, moments {size(plan.memory.moments)}"
    yield "a rank holds: student", f"{size(plan.memory.total)} in {plan.precision}, ZeRO-{plan.zero_stage} ({kinds}, {masters})"
    yield "a rank holds: logits", f"{size(plan.logits_bytes)} at most"
    yield "a checkpoint", size(plan.checkpoint_bytes)
    yield "disk", f"{size(plan.disk_needed)} needed, {size(plan.disk_free)} free"
