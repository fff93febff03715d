"""The figures of a page: a plot for each number of the report lines, runs over each other, by part of the page."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from launcher.run_page.numbers import PARTS, Numbers, capital, numbers_of, points
from launcher.run_page.plots import Curve, Plot, plot
from launcher.run_page.record import Record

MOST_PLOTS = 80
MOST_TOGETHER = 8
"""Curves of a group in one plot: there are so many colours."""


@dataclass(frozen=True)
class Figures:
    """(title of the part, its plots), in order. left_out: number of numbers that have no plot because there are too many."""

    parts: list[tuple[str, list[Plot]]] = field(default_factory=list)
    left_out: int = 0


def figures(records: Sequence[Record], labels: Sequence[str], buckets: int) -> Figures:
    """Draw every number of the runs against updates, and with several runs the loss and a score against tokens and hours too."""
    known = numbers_of(
        (line for record in records for line in _some(record.train)), (line for record in records for line in _some(record.heldout))
    )
    known = [one for one in known if one.part != "health" or any(line.get(one.key) for record in records for line in record.train)]
    left_out, known = len(known[MOST_PLOTS:]), known[:MOST_PLOTS]
    drawn: dict[str, list[Plot]] = {part: [] for part in PARTS}
    for number, together in enumerate(_grouped(known, len(records) == 1)):
        one = together[0]
        curves = [
            Curve(
                labels[run] if len(together) == 1 else each.label or each.key.partition("/")[2], run if len(together) == 1 else place, found
            )
            for place, each in enumerate(together)
            for run, record in enumerate(records)
            if (found := points(_lines(record, each), each.key))
        ]
        title = _with_unit(one, one.title if len(together) == 1 else capital(one.group.replace("_", " ")))
        if curves:
            drawn[one.part].append(plot(f"plot-{number}", title, curves, one.form, buckets=buckets, may_be_logarithmic=one.is_wide))
    if len(records) > 1:
        _add_axes(drawn, records, labels, known, buckets)
    return Figures([(title, drawn[part]) for part, title in PARTS.items() if drawn[part]], left_out)


def _add_axes(
    drawn: dict[str, list[Plot]], records: Sequence[Record], labels: Sequence[str], known: Sequence[Numbers], buckets: int
) -> None:
    """Plots against tokens and hours of the loss and of the first held-out number: runs may have batches of different sizes."""
    chosen = [next((one for one in known if one.key == "loss"), None), next((one for one in known if one.kind == "heldout"), None)]
    for one in filter(None, chosen):
        for axis, unit, name in (("tokens", 1.0, "tokens"), ("time", 3600.0, "hours since the start")):
            curves = []
            for run, record in enumerate(records):
                begin = min((line["time"] for line in (*record.events, *record.train) if "time" in line), default=0.0) if unit > 1 else 0.0
                if found := points(_lines(record, one), one.key, axis, begin, unit):
                    curves.append(Curve(labels[run], run, found))
            if curves:
                identity = f"plot-{one.key.replace('/', '-')}-{axis}"
                drawn[one.part].append(
                    plot(identity, f"{_with_unit(one, one.title)}, against {axis}", curves, one.form, name, buckets, one.is_wide)
                )


def _with_unit(one: Numbers, title: str) -> str:
    return f"{title}, {one.unit}" if one.unit else title


def _grouped(known: Sequence[Numbers], one_run: bool) -> list[list[Numbers]]:
    """Numbers that share a plot: of one group, in a page of one run."""
    groups: list[list[Numbers]] = []
    for one in known:
        last = groups[-1] if groups else []
        if one_run and one.group and last and last[0].group == one.group and len(last) < MOST_TOGETHER:
            last.append(one)
        else:
            groups.append([one])
    return groups


def _lines(record: Record, one: Numbers) -> Sequence[dict[str, object]]:
    return record.train if one.kind == "train" else record.heldout


def _some(lines: Sequence[dict[str, object]]) -> Sequence[dict[str, object]]:
    """Lines that have every key: all of a short run; of a long one every n-th, the first and the last thousand."""
    step = max(1, len(lines) // 5000)
    return [*lines[:1000], *lines[::step], *lines[-1000:]]
