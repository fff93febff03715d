"""Numbers as text for people: times, sizes, shares."""

import math


def duration(seconds: float) -> str:
    """A time a person reads at a glance: `42 s`, `3 min 05 s`, `2 h 07 min`, `3 d 04 h`."""
    if not math.isfinite(seconds):
        return "unknown time"
    whole = max(0, round(seconds))
    for unit, name, small, part, digits in ((86400, "d", 3600, "h", 2), (3600, "h", 60, "min", 2), (60, "min", 1, "s", 2)):
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // small:0{digits}d} {part}"
    return f"{whole} s"


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number with its noun: `1 document`, `2,000 documents`. plural: of a noun that takes more than an s."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def size(count: float) -> str:
    """Bytes in the largest decimal unit that leaves a digit before the point: `1.25 GB`, `310 kB`."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}" if count < 999.5 * unit else f"{count / unit:,.0f} {name}"
    return f"{count:.0f} B"


def number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}" if value and abs(value) < 1 else f"{value:.3f}"


def share(value: float | None) -> str:
    return "none" if value is None else f"{100 * value:.1f} %"
