"""The panels of the dashboard, section by section: which keys of W&B's history each one shows, over which axis. Knows no W&B."""

from dataclasses import dataclass

from kd.evaluation.scores import SCORES
from launcher.reporting.catalogue import GROUPS, TIME_PARTS, TRAIN_METRICS

SECTIONS = {"learning": "update", "teaching": "tokens", "speed": "elapsed_seconds", "health": "update"}
"""Section -> the axis of its panels."""
STACKED = tuple(f"time/{part}" for part in TIME_PARTS)


@dataclass(frozen=True)
class Panel:
    """One diagram. keys: of W&B's history. pattern: instead of keys, a regular expression that finds them."""

    title: str
    x: str
    unit: str
    keys: tuple[str, ...] = ()
    pattern: str | None = None
    stacked: bool = False


def panels() -> dict[str, list[Panel]]:
    """The panels of each section."""
    sections: dict[str, dict[str, Panel]] = {section: {} for section in SECTIONS}
    for score in SCORES:
        if score.during_runs:
            unit = "nats" if score.key == "loss" else "share of masked tokens"
            title = f"held-out {score.heading}"
            sections["learning"][title] = Panel(title, "tokens", unit, (f"heldout/{score.key}",))
    for metric in TRAIN_METRICS:
        if metric.panel is not None:
            section, title = metric.panel.section, metric.panel.together or metric.panel.title
            known = sections[section].get(title)
            keys = (*(known.keys if known else ()), f"train/{metric.key}")
            sections[section][title] = Panel(title, SECTIONS[section], metric.panel.unit, keys, stacked=metric.key in STACKED)
    for group, place in GROUPS.items():
        sections[place.section][place.title] = Panel(place.title, SECTIONS[place.section], place.unit, pattern=f"^train/{group}/.*")
    for what, unit in (("loss", "nats per token, unweighted"), ("weight", ""), ("temperature", "")):
        title = f"{what} of each term"
        sections["teaching"][title] = Panel(title, SECTIONS["teaching"], unit, pattern=f"^train/{what}/.*")
    for key, title, unit in (
        ("seconds", "time to write a checkpoint", "s"),
        ("paused_seconds", "pause for a checkpoint", "s"),
        ("bytes", "checkpoint size", "bytes"),
    ):
        sections["health"][title] = Panel(title, "update", unit, (f"checkpoint/{key}",))
    return {section: list(found.values()) for section, found in sections.items()}
