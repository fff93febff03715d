"""A comparison as one picture. Draws without a screen and without its global state."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from launcher.comparison.results import SCORES, Metric, Results

PANELS = ("loss", "top1", "agreement", "kl")
INK, POINTS, REFERENCE = "#22333b", "#5e8c9a", "#b5523b"


def draw(results: Results, path: Path) -> None:
    """Write a PNG of three kinds of panels.

    - Each score, with a point a run and the mean as a bar.
    - The learning rate over tokens.
    - The similarity of layers by variant.
    """
    metrics = [m for key in PANELS for m in SCORES if m.key == key and any(row.get(key) is not None for row in results.rows)]
    maps = {name: found for name in results.variants if (found := mean_similarity(results, name)) is not None}
    columns, height = 2, 0.32 * len(results.variants) + 0.9
    lines = -(-(len(metrics) + 1) // columns)
    map_columns = min(4, max(len(maps), 1))
    map_lines = -(-len(maps) // map_columns)
    figure = Figure(figsize=(9.0, lines * height + map_lines * 2.1), dpi=72, layout="constrained")
    figure.suptitle(f"{results.name}: equal {results.budget}", fontsize=11, color=INK)
    above, *below = figure.subfigures(
        2 if maps else 1, 1, height_ratios=[lines * height, map_lines * 2.1] if maps else None, squeeze=False
    )[:, 0]
    panels = above.subplots(lines, columns, squeeze=False).flatten()
    speed = Metric("tokens_per_second", "tokens/s of learning", ",.0f")
    for panel, metric in zip(panels, [*metrics, speed], strict=False):
        _scores(panel, results, metric)
    for panel in panels[len(metrics) + 1 :]:
        panel.axis("off")
    if below:
        below[0].suptitle("linear CKA: student layers (up) and teacher layers (right)", fontsize=9, color=INK)
        places = below[0].subplots(map_lines, map_columns, squeeze=False).flatten()
        for panel, (name, found) in zip(places, maps.items(), strict=False):
            _similarity(panel, name, found)
        for panel in places[len(maps) :]:
            panel.axis("off")
    figure.savefig(path, format="png", metadata={"Software": None})


def mean_similarity(results: Results, variant: str) -> list[list[float]] | None:
    """A variant's table of layer similarities, the mean over its runs; None without a teacher."""
    tables = [row["similarity"] for row in results.rows if row["variant"] == variant and row.get("similarity")]
    if not tables:
        return None
    return [[sum(cells) / len(tables) for cells in zip(*rows, strict=True)] for rows in zip(*tables, strict=True)]


def _scores(panel: Axes, results: Results, metric: Metric) -> None:
    """A row a variant: its runs as points, their mean as a line; the reference's mean as a dashed line through all."""
    panel.set_title(f"{metric.heading} ({'more' if metric.more_is_better else 'less'} is better)", fontsize=9, color=INK)
    for place, variant in enumerate(results.variants):
        values = list(results.values(variant, metric.key).values())
        color = REFERENCE if variant == results.reference else POINTS
        panel.scatter(values, [place] * len(values), s=16, color=color, alpha=0.7, linewidths=0)
        if values:
            mean = sum(values) / len(values)
            panel.plot([mean, mean], [place - 0.32, place + 0.32], color=color, linewidth=2)
            if variant == results.reference:
                panel.axvline(mean, color=REFERENCE, linewidth=0.8, linestyle="--", alpha=0.6)
    panel.set_yticks(range(len(results.variants)), results.variants, fontsize=8)
    panel.set_ylim(len(results.variants) - 0.5, -0.5)
    panel.tick_params(axis="x", labelsize=8)
    if metric.form.endswith("%"):
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:.1%}")
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)


def _similarity(panel: Axes, name: str, table: list[list[float]]) -> None:
    panel.imshow(table, vmin=0, vmax=1, cmap="cividis", origin="lower", aspect="auto")
    for row, values in enumerate(table):
        for column, value in enumerate(values):
            panel.text(
                column, row, f"{value:.2f}".lstrip("0"), ha="center", va="center", fontsize=6, color="white" if value < 0.6 else "black"
            )
    panel.set_title(name, fontsize=8, color=INK)
    panel.set_xticks(range(len(table[0])))
    panel.set_yticks(range(len(table)))
    panel.tick_params(labelsize=6, length=0)
