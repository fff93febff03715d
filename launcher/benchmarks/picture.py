"""The picture of `stillhouse bench`."""

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from launcher.benchmarks.measured import Figures


def picture(figures: Sequence[Figures], facts: dict[str, Any]) -> bytes:
    """A PNG: the ratio of each case with its quartiles, and the share of the GEMM rate."""
    drawn = Figure(figsize=(9.0, 0.6 * len(figures) + 1.8), dpi=96, layout="constrained")
    left, right = drawn.subplots(1, 2, sharey=True)
    places, names = range(len(figures)), [f"{one.case}, {one.precision}" for one in figures]
    errors = [[one.ratio - one.low for one in figures], [one.high - one.ratio for one in figures]]
    left.barh(places, [one.ratio for one in figures], xerr=errors, color="#4477aa", height=0.6)
    left.axvline(1.0, color="#888888", linewidth=0.8, linestyle="--")
    left.set_xlabel("speed over the plain loop's")
    left.set_yticks(places, names, fontsize=8)
    left.invert_yaxis()
    right.barh(places, [one.utilisation or 0.0 for one in figures], color="#228833", height=0.6)
    right.set_xlabel("share of the matrix product's FLOP/s")
    drawn.suptitle(f"{facts['processor']}, {facts['threads']} threads", fontsize=8, color="#555555")
    content = io.BytesIO()
    drawn.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()
