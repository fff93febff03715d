"""Tables on the console: no number and no heading is cut at any width, and a legend explains each column."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table

NAME_WIDTH = 16
"""Longer names in the first column may be folded."""
UNBOUNDED = 100_000


class PlainConsole(Console):
    """A console that shows text as it is: [x] and :x: in the name of a folder or a label are no markup and no emoji."""

    def __init__(self, **words: Any) -> None:
        super().__init__(markup=False, emoji=False, **words)


@dataclass(frozen=True)
class Column:
    """One column. meaning: its part of the legend; empty for a heading that says it all."""

    heading: str
    cells: Sequence[str]
    meaning: str = ""
    justify: Literal["left", "right"] = "right"


def print_table(console: Console, names: Column, columns: Sequence[Column]) -> None:
    """Print rows with their names in front, in as many tables as the console's width needs, then the legend."""
    left = list(columns)
    while left:
        count = len(left)
        while count > 1 and _least_width(console, _table(names, left[:count])) > console.width:
            count -= 1
        table = _table(names, left[:count])
        console.print(table, width=max(console.width, _least_width(console, table)), crop=False)  # one column alone may be wider
        left = left[count:]
    print_legend(console, {column.heading: column.meaning for column in (names, *columns)})


def print_legend(console: Console, meanings: dict[str, str]) -> None:
    """Print `heading: meaning`, a line each, for headings that have a meaning."""
    for heading, meaning in meanings.items():
        if meaning:
            console.print(f"{heading}: {meaning}", style="dim", markup=False, highlight=False)


def _least_width(console: Console, table: Table) -> int:
    """The width below which something of a table is cut."""
    return console.measure(table, options=console.options.update_width(UNBOUNDED)).minimum


def _table(names: Column, columns: Sequence[Column]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    longest = max(map(len, names.cells), default=0)
    table.add_column(names.heading, overflow="fold", min_width=max(len(names.heading), min(NAME_WIDTH, longest)), justify=names.justify)
    for column in columns:
        width = max(map(len, (column.heading, *column.cells)))
        table.add_column(column.heading, justify=column.justify, no_wrap=True, min_width=width)
    for row, name in enumerate(names.cells):
        table.add_row(name, *(column.cells[row] for column in columns))
    return table
