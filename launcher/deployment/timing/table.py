"""The tables of `stillhouse latency` on the console."""

from collections.abc import Sequence

from rich.console import Console

from launcher.deployment.timing.candidates import Candidate
from launcher.deployment.timing.figures import MOST_WALL_PER_CPU, Row
from launcher.tables import Column, print_table
from launcher.text import size

SHAPES = {"batch": "rows of a batch", "length": "tokens of a row, without padding", "threads": "threads of the model"}


def show(rows: Sequence[Row], candidates: Sequence[Candidate], console: Console) -> None:
    """Print the models with their letters, the settings that are the same in all rows, and the figures."""
    for one in candidates:
        weights = "" if one.bytes is None else f", {size(one.bytes)}"
        console.print(f"{one.letter}  {one.model}: {one.form}{weights}", soft_wrap=True, markup=False, highlight=False)
    varying = [key for key in SHAPES if len({row[key] for row in rows}) > 1]
    fixed = ", ".join(f"{key} {rows[0][key]}" for key in SHAPES if key not in varying)
    if fixed:
        console.print(fixed, markup=False, highlight=False)
    columns = [Column(key, [str(row[key]) for row in rows], SHAPES[key]) for key in varying]
    columns += [
        Column("p50", [milliseconds(row["p50_ms"]) for row in rows], "median wall time of a batch, ms; p95 and p99 alike"),
        Column("95 %", ["-".join(map(milliseconds, row["p50_interval_ms"])) for row in rows], "confidence interval of p50, by bootstrap"),
        Column("p95", [milliseconds(row["p95_ms"]) for row in rows]),
        Column("p99", [milliseconds(row["p99_ms"]) for row in rows]),
        Column("CPU", [milliseconds(row["cpu_p50_ms"]) for row in rows], "median CPU time of all threads, ms"),
        Column("rows/s", [f"{row['rows_per_second']:.0f}" for row in rows]),
        Column(
            "wall/CPU",
            [f"{row['wall_per_cpu']:.2f}" for row in rows],
            f"above {MOST_WALL_PER_CPU:g} with one thread: other processes had the core",
        ),
    ]
    print_table(console, Column("model", [row["letter"] for row in rows], justify="left"), columns)


def milliseconds(value: float) -> str:
    """Milliseconds with three digits, or more before the point."""
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"
