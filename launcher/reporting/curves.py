"""The curves of runs as one PNG, from their metrics.jsonl: `stillhouse plot RUN…`, and curves.png in each run folder."""

import argparse
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from launcher.errors import LaunchError
from launcher.run_folder.metrics_file import METRICS, read
from stillhouse.files import write_atomically

Lines = Sequence[Mapping[str, Any]]
COLORS = ("#22333b", "#b5523b", "#5e8c9a", "#c9a227", "#6a4c93", "#3f7d20")
SHARES = ("heldout_top1", "heldout_top5")
MOST_POINTS = 2000  # of a curve; more are not seen
PICTURE = "curves.png"

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # its notes on fonts and cache folders are no concern of a run


def run(arguments: argparse.Namespace) -> int:
    """Draw the runs and print the path of the picture."""
    folders = [Path(folder) for folder in arguments.runs]
    runs: dict[str, Lines] = {}
    for folder in folders:
        if not (folder / METRICS).is_file():
            raise LaunchError(f"{folder}: expected a run folder with {METRICS}, got none; check the path")
        lines = read(folder / METRICS)
        if not any(line["kind"] == "train" for line in lines):
            raise LaunchError(f"{folder}: expected a train line in {METRICS}, got none; wait for the first report")
        runs[str(folder)] = lines
    out = Path(arguments.out or (folders[0] / PICTURE if len(runs) == 1 else PICTURE))
    if out.suffix.lower() != ".png":
        raise LaunchError(f"--out: expected a name that ends in .png, got {out}; correct it")
    try:
        write_atomically(out, picture(runs))
    except OSError as error:
        raise LaunchError(f"{out}: expected to write the picture, got {error.strerror}; choose another --out") from None
    print(out)
    return 0


def draw_run(folder: Path) -> None:
    """Write curves.png into a run folder. Nothing is written before the first train line. Raises OSError and LaunchError."""
    lines = read(folder / METRICS) if (folder / METRICS).exists() else []
    if any(line["kind"] == "train" for line in lines):
        write_atomically(folder / PICTURE, picture({folder.name: lines}), sync=False)


def picture(runs: Mapping[str, Lines]) -> bytes:
    """A PNG with four panels over the updates: losses by term, held-out scores, learning rate, throughput. One colour for each run.

    With one run, each term and each score has a colour.
    """
    figure = Figure(figsize=(10.0, 6.4), dpi=96, layout="constrained")
    loss, heldout, rate, speed = figure.subplots(2, 2).flatten()
    for title, panel in (("training loss", loss), ("held-out scores", heldout), ("learning rate", rate), ("tokens/s", speed)):
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("update", fontsize=8)
        panel.tick_params(labelsize=8)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    shares = heldout.twinx()
    shares.set_ylabel("share of masked tokens (dashed)", fontsize=8)
    shares.tick_params(labelsize=8)
    heldout.set_ylabel("loss, nats", fontsize=8)
    loss.set_ylabel("loss; terms unweighted", fontsize=8)
    for number, (name, lines) in enumerate(runs.items()):
        train = [line for line in lines if line["kind"] == "train"]
        scores = [line for line in lines if line["kind"] == "heldout"]
        terms = sorted({key for line in train for key in line if key.startswith("loss/")})
        label = f"{name}: " if len(runs) > 1 else ""
        for place, key in enumerate(["loss", *terms]):
            color = COLORS[(number if len(runs) > 1 else place) % len(COLORS)]
            style = ("-", "--", ":", "-.")[min(place, 3)] if len(runs) > 1 else "-"
            _curve(loss, train, key, color, style, label + ("weighted sum" if key == "loss" else key.removeprefix("loss/")))
        color = COLORS[number % len(COLORS)]
        _curve(heldout, scores, "heldout_loss", color, "-", f"{label}loss", marker=".")
        for place, key in enumerate(SHARES):
            other = COLORS[(number if len(runs) > 1 else place + 1) % len(COLORS)]
            _curve(shares, scores, key, other, ("--", ":")[place], label + key.removeprefix("heldout_").replace("top", "top-"), marker=".")
        _curve(rate, train, "learning_rate", color, "-", name)
        _curve(speed, train, "tokens_per_second", color, "-", name)
    if loss.get_lines():
        loss.legend(fontsize=7)
    handles, labels = heldout.get_legend_handles_labels()
    more, names = shares.get_legend_handles_labels()
    if handles or more:
        heldout.legend([*handles, *more], [*labels, *names], fontsize=7)
    if len(runs) > 1:
        rate.legend(fontsize=7)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def _curve(panel: Axes, lines: Lines, key: str, color: str, style: str, label: str, marker: str = "") -> None:
    """One curve, where there is a number for it."""
    points = [(line["update"], line[key]) for line in lines if line.get(key) is not None]
    points = points[:: max(1, -(-len(points) // MOST_POINTS))] + points[-1:]
    if points:
        updates, values = zip(*points, strict=True)
        panel.plot(updates, values, color=color, linestyle=style, label=label, linewidth=1.3, marker=marker or None)
