"""The picture of a comparison on a task: the metric of each variant with both kinds of noise. Draws without a screen."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from launcher.comparison.statistics import Spread, t_interval
from launcher.comparison.tasks.results import TaskResults

INK, POINTS, REFERENCE, CONSTANT = "#22333b", "#5e8c9a", "#b5523b", "#8a8a8a"


def draw(results: TaskResults, path: Path) -> None:
    """Write a PNG: a row a variant, in the order of the settings.

    Points are runs and a bar is their mean. The thick line is Student's 95 % interval of the mean over the seeds, and the thin line is the
    bootstrap interval over the rows of dev. A column beside it has the share of the teacher's score, where there is one teacher.
    """
    taught = any(row["retained"] is not None for row in results.rows)
    ranked = set(results.ranked)
    names = [name for name in results.variants if name in ranked]
    figure = Figure(figsize=(9.0 if taught else 7.0, 0.42 * len(names) + 1.7), dpi=96, layout="constrained")
    figure.suptitle(f"{results.name}: {results.metric} on dev", fontsize=11, color=INK)
    panels = figure.subplots(1, 2 if taught else 1, squeeze=False, sharey=True)[0]
    better = "less" if results.lower_is_better else "more"
    panels[0].set_title(f"{results.metric} ({better} is better)", fontsize=9, color=INK)
    _rows(panels[0], results, names, results.metric)
    _constant(panels[0], results)
    if taught:
        panels[1].set_title("share of the teacher's score", fontsize=9, color=INK)
        _rows(panels[1], results, names, "retained")
        panels[1].xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    counts = sorted({len(results.values(name, results.metric)) for name in names})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    thick = "thick: 95 % interval of the mean over the seeds; " if counts[-1] > 1 else ""
    figure.supxlabel(f"points: runs ({seeds} a variant); {thick}thin: 95 % bootstrap interval over the rows of dev", fontsize=8, color=INK)
    figure.savefig(path, format="png", metadata={"Software": None})


def _rows(panel: Axes, results: TaskResults, names: list[str], key: str) -> None:
    """Runs, mean and intervals of each variant. The intervals are those of the metric alone."""
    for place, name in enumerate(names):
        values = list(results.values(name, key).values())
        mean = results.mean(name, key)
        if mean is None:
            continue
        color = REFERENCE if name == results.compared_with else POINTS
        if key == results.metric:
            half, margin = results.mean(name, "half_interval"), _margin(mean)
            if half is not None:
                panel.plot([mean.mean - half.mean, mean.mean + half.mean], [place, place], color=color, linewidth=1)
            if margin is not None:
                panel.plot([mean.mean - margin, mean.mean + margin], [place, place], color=color, linewidth=4, alpha=0.35)
        panel.scatter(values, [place] * len(values), s=18, color=color, linewidths=0, zorder=3)
        panel.plot([mean.mean, mean.mean], [place - 0.3, place + 0.3], color=color, linewidth=2)
        if name == results.compared_with:
            panel.axvline(mean.mean, color=REFERENCE, linewidth=0.8, linestyle="--", alpha=0.6)
    panel.set_yticks(range(len(names)), names, fontsize=8)
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.tick_params(axis="x", labelsize=8)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)


def _margin(mean: Spread) -> float | None:
    """Half of Student's interval of a mean; None for one run."""
    return None if mean.deviation is None else t_interval(mean.deviation, mean.count)


def _constant(panel: Axes, results: TaskResults) -> None:
    """A dotted line at the score of a constant prediction, if it lies among the values."""
    constant = results.mean(results.compared_with, "constant")
    low, high = panel.get_xlim()
    if constant is not None and low - (high - low) <= constant.mean <= high + (high - low):
        panel.axvline(constant.mean, color=CONSTANT, linewidth=1, linestyle=":")
        panel.annotate(
            "constant prediction",
            (constant.mean, 0),
            xycoords=("data", "axes fraction"),
            xytext=(3, 3),
            textcoords="offset points",
            fontsize=7,
            color=CONSTANT,
        )
