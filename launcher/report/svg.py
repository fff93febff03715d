"""Small charts as inline SVG: axes, lines, points and bars. Colours come from the page's style sheet, so both themes work.

Elements are built as a tree, which escapes every text. Shapes and dashes differ as well as colours.
"""

import math
from collections.abc import Sequence
from xml.etree import ElementTree

WIDTH = 440
MARKS = ("circle", "square", "triangle", "diamond", "cross")
CORNERS: dict[str, tuple[tuple[float, float], ...]] = {
    "square": ((-4.5, -4.5), (4.5, -4.5), (4.5, 4.5), (-4.5, 4.5)),
    "triangle": ((0, -6), (5.5, 4.5), (-5.5, 4.5)),
    "diamond": ((0, -6.5), (6.5, 0), (0, 6.5), (-6.5, 0)),
    "cross": ((-5, -2), (-2, -2), (-2, -5), (2, -5), (2, -2), (5, -2), (5, 2), (2, 2), (2, 5), (-2, 5), (-2, 2), (-5, 2)),
}
SERIES = 8
"""Colours of the style sheet: s0 .. s7."""


class Chart:
    """An SVG drawing of a fixed width. title and about are read out by a screen reader."""

    def __init__(self, name: str, title: str, about: str, height: int) -> None:
        self.height = height
        self.root = ElementTree.Element(
            "svg",
            {"viewBox": f"0 0 {WIDTH} {height}", "role": "img", "aria-labelledby": f"{name}-title {name}-about", "class": "chart"},
        )
        self._child("title", title, id=f"{name}-title")
        self._child("desc", about, id=f"{name}-about")

    def text(self, x: float, y: float, text: str, anchor: str = "start", style: str = "label") -> None:
        self._child("text", text, x=_number(x), y=_number(y), style=f"text-anchor:{anchor}", **{"class": style})

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
        self._child("line", x1=_number(x1), y1=_number(y1), x2=_number(x2), y2=_number(y2), **{"class": style})

    def bar(self, x: float, y: float, width: float, height: float, style: str) -> None:
        self._child("rect", x=_number(x), y=_number(y), width=_number(max(width, 0)), height=_number(height), rx="2", **{"class": style})

    def path(self, points: Sequence[tuple[float, float]], style: str) -> None:
        self._child("polyline", points=" ".join(f"{_number(x)},{_number(y)}" for x, y in points), **{"class": style})

    def mark(self, x: float, y: float, series: int, about: str) -> None:
        """A point whose shape and colour belong to a series; about: its tooltip."""
        shape = MARKS[series % len(MARKS)]
        if shape == "circle":
            element = self._child("circle", cx=_number(x), cy=_number(y), r="5")
        else:
            element = self._child("polygon", points=" ".join(f"{_number(x + dx)},{_number(y + dy)}" for dx, dy in CORNERS[shape]))
        element.set("class", f"mark s{series % SERIES}")
        ElementTree.SubElement(element, "title").text = about

    def markup(self) -> str:
        return ElementTree.tostring(self.root, encoding="unicode")

    def _child(self, tag: str, text: str | None = None, **attributes: str) -> ElementTree.Element:
        element = ElementTree.SubElement(self.root, tag, attributes)
        element.text = text
        return element


def legend_mark(series: int) -> str:
    """The point of a series in the legend. The name is the text, so a screen reader skips the drawing."""
    chart = Chart("legend", "", "", 0)
    chart.mark(0, 0, series, "")
    return _sample(chart.root[-1])


def legend_line(series: int) -> str:
    """The line of a series in the legend."""
    chart = Chart("legend", "", "", 0)
    chart.path([(-12, 0), (12, 0)], f"curve s{series % SERIES} d{series % 4}")
    return _sample(chart.root[-1])


def _sample(drawing: ElementTree.Element) -> str:
    for child in list(drawing):
        drawing.remove(child)
    half = 12 if drawing.tag == "polyline" else 7
    root = ElementTree.Element("svg", {"viewBox": f"{-half} -7 {2 * half} 14", "aria-hidden": "true"})
    root.append(drawing)
    return ElementTree.tostring(root, encoding="unicode")


class Scale:
    """Values -> pixels, linear or logarithmic, with ticks at round values."""

    def __init__(self, low: float, high: float, begin: float, end: float, logarithmic: bool = False) -> None:
        self.logarithmic = logarithmic
        low, high = (math.log10(low), math.log10(high)) if logarithmic else (low, high)
        room = (high - low) * 0.06 or (0.15 if logarithmic else abs(high) * 0.05 or 1.0)
        self.low, self.high, self.begin, self.end = low - room, high + room, begin, end

    def __call__(self, value: float) -> float:
        place = math.log10(value) if self.logarithmic else value
        return self.begin + (place - self.low) / (self.high - self.low) * (self.end - self.begin)

    def ticks(self, count: int = 6) -> list[float]:
        """Round values within the scale, about `count` of them."""
        low, high = self.low, self.high
        if self.logarithmic:
            powers = range(math.floor(low), math.ceil(high) + 1)
            ticks = [step * 10.0**power for power in powers for step in (1, 2, 5) if low <= math.log10(step * 10.0**power) <= high]
            if len(ticks) > 2:
                return ticks if len(ticks) <= 2 * count else [tick for tick in ticks if math.log10(tick).is_integer()]
            low, high = 10.0**low, 10.0**high
        step = 10.0 ** math.floor(math.log10((high - low) / count))
        step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= count)
        return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


class ScaleWithZero(Scale):
    """Counts -> pixels on a logarithmic scale, with a place for 0 at its left. zero: that place; None where no count is 0."""

    ZERO, GAP = 14.0, 34.0

    def __init__(self, counts: Sequence[float], begin: float, end: float) -> None:
        above = [count for count in counts if count > 0] or [1.0]
        self.zero = begin + self.ZERO if min(counts) <= 0 else None
        super().__init__(min(above), max(above), begin + (self.ZERO + self.GAP if self.zero is not None else 0.0), end, logarithmic=True)

    def __call__(self, value: float) -> float:
        return self.zero if value <= 0 and self.zero is not None else super().__call__(value)

    def ticks(self, count: int = 6) -> list[float]:
        """0 where it has a place, then round counts."""
        return [*([0.0] if self.zero is not None else []), *super().ticks(count)]


def _number(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")
