"""The picture of `stillhouse latency`: time of a batch over its length, one panel for each batch and number of threads."""

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from launcher.deployment.timing.candidates import Candidate
from launcher.deployment.timing.figures import Row
from launcher.reporting.curves import COLORS

STYLES = ("-", "--", ":", "-.")


def picture(rows: Sequence[Row], candidates: Sequence[Candidate], target: float | None, caption: str) -> bytes:
    """A PNG. A point is a median, its bar goes from the median to the 95th percentile. The dashed line is the target."""
    settings = sorted({(row["batch"], row["threads"]) for row in rows})
    columns = min(2, len(settings))
    lines = -(-len(settings) // columns)
    figure = Figure(figsize=(5.0 * columns, 3.2 * lines + 0.25 * len(candidates) + 0.4), dpi=96, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    for panel, (batch, threads) in zip(panels, settings, strict=False):
        panel.set_title(f"batch {batch}, {threads} thread{'s' if threads > 1 else ''}", fontsize=10)
        _panel(panel, [row for row in rows if (row["batch"], row["threads"]) == (batch, threads)], candidates)
        if target is not None:
            panel.axhline(target, color="#888888", linewidth=0.8, linestyle="--")
    for panel in panels[len(settings) :]:
        panel.axis("off")
    handles, _ = panels[0].get_legend_handles_labels()
    names = [f"{one.letter}  {one.model[-60:]}: {one.form}" for one in candidates]
    figure.legend(handles, names, loc="outside lower left", fontsize=7, frameon=False)
    figure.suptitle(caption, fontsize=8, color="#555555")
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def _panel(panel: Axes, rows: Sequence[Row], candidates: Sequence[Candidate]) -> None:
    lengths = sorted({row["length"] for row in rows})
    for number, one in enumerate(candidates):
        mine = sorted((row for row in rows if row["letter"] == one.letter), key=lambda row: row["length"])
        medians = [row["p50_ms"] for row in mine]
        above = [row["p95_ms"] - row["p50_ms"] for row in mine]
        panel.errorbar(
            [row["length"] for row in mine],
            medians,
            yerr=[[0.0] * len(mine), above],
            color=COLORS[number % len(COLORS)],
            linestyle=STYLES[number // len(COLORS) % len(STYLES)],
            marker="o",
            markersize=3,
            linewidth=1.3,
            capsize=2,
            label=one.letter,
        )
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.set_xticks(lengths, [str(length) for length in lengths])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.yaxis.set_minor_formatter(NullFormatter())
    panel.set_xlabel("tokens of a row", fontsize=8)
    panel.set_ylabel("ms, median to p95", fontsize=8)
    panel.tick_params(labelsize=8)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
