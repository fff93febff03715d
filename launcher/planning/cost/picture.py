"""The picture of `stillhouse plan`: hours, efficiency and parts of an update over the number of devices."""

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from launcher.planning.cost.scaling import Scaled
from launcher.reporting.curves import COLORS


def picture(rows: Sequence[Scaled], caption: str, form: str) -> bytes:
    """A PNG or SVG. form: png or svg."""
    ran = [(row.ranks, row.efficiency, row.plan) for row in rows if row.plan is not None]
    figure = Figure(figsize=(10.0, 3.6), dpi=96, layout="constrained")
    hours, useful, parts = figure.subplots(1, 3)
    ranks = [count for count, _, _ in ran]
    hours.plot(ranks, [plan.hours for _, _, plan in ran], color=COLORS[0], marker="o", markersize=3, label="planned")
    ideal = [ran[0][2].hours * ran[0][0] / count for count in ranks]
    hours.plot(ranks, ideal, color=COLORS[2], linestyle="--", linewidth=1, label="ideal")
    hours.set_yscale("log")
    hours.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    hours.legend(fontsize=7, frameon=False)
    useful.plot(ranks, [100 * efficiency for _, efficiency, _ in ran], color=COLORS[1], marker="s", markersize=3)
    useful.set_ylim(0, 105)
    names = [name for name in ran[0][2].seconds if any(plan.seconds[name] > 0 for _, _, plan in ran)]
    shares = [[100 * plan.seconds[name] / plan.update_seconds for _, _, plan in ran] for name in names]
    parts.stackplot(ranks, shares, labels=names, colors=[*COLORS, "#999999", "#cccccc", "#e0c9a6"][: len(names)])
    parts.legend(fontsize=6, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    for panel, title in ((hours, "hours"), (useful, "useful share of device time, %"), (parts, "parts of an update, %")):
        _axes(panel, title, ranks)
    figure.suptitle(caption, fontsize=8, color="#555555")
    content = io.BytesIO()
    figure.savefig(content, format=form, metadata={"Date": None} if form == "svg" else {"Software": None})
    return content.getvalue()


def _axes(panel: Axes, title: str, ranks: Sequence[int]) -> None:
    panel.set_title(title, fontsize=9)
    panel.set_xscale("log", base=2)
    panel.set_xticks(list(ranks), [str(count) for count in ranks], rotation=45)
    panel.xaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_minor_formatter(NullFormatter())
    panel.set_xlabel("devices", fontsize=8)
    panel.tick_params(labelsize=7)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
