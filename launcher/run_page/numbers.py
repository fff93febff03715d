"""The numbers of report lines as curves: which there are, how each is named and written, and few points that look like all of them."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard, cast

from kd.evaluation.scores import SCORES
from launcher.reporting.catalogue import COUNT, GROUPS, PANELS
from launcher.text import number, share

BUCKETS = 500
"""Of a drawn curve: each keeps its lowest and its highest point."""
NO_CURVES = {
    "kind",
    "update",
    "updates",
    "time",
    "tokens",
    "tokens_total",
    "memory_planned_gb",
    "epoch",
    "seconds_left",
    "elapsed_seconds",
    "phase",
}
Point = tuple[float, float]
Part = Literal["learning", "teaching", "heldout", "speed", "health", "other"]
PARTS: dict[Part, str] = {
    "learning": "Learning",
    "heldout": "Held-out scores",
    "teaching": "Student and teacher",
    "speed": "Speed, time and memory",
    "health": "Health",
    "other": "Other numbers",
}
SHARES = ("share", "top1", "top5", "accuracy", "utilisation")


@dataclass(frozen=True)
class Numbers:
    """One number of the report lines. kind: of its lines. form: how a value is written. unit: in the title, where no value shows it.

    group: keys of one group share a plot, in which each curve has its label.
    """

    key: str
    kind: Literal["train", "heldout"]
    title: str
    part: Part
    form: Callable[[float], str] = number
    group: str = ""
    label: str = ""
    unit: str = ""

    @property
    def is_wide(self) -> bool:
        """True for losses and norms, whose values may span decades."""
        return self.key == "gradient_norm" or self.key.partition("/")[0] in ("loss", "heldout_loss")


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _short(value: float) -> str:
    return f"{value:.3g}"


def _gigabytes(value: float) -> str:
    return f"{value:.2f} GB"


UNITS = ("nats", "GB")
"""Units that neither a title nor an axis shows."""
FORMS: dict[str, Callable[[float], str]] = {"share": share, "tokens/s": _whole, "GB": _gigabytes, COUNT: _whole}
"""Unit -> how a value is written."""
SCORE_TITLES = {score.key: score.heading for score in SCORES}
WORDS: dict[Part, tuple[str, ...]] = {
    "speed": ("second", "share", "time", "utilisation", "flops", "memory", "bytes", "gb", "watt"),
    "teaching": ("kl", "agreement", "agrees", "entropy", "teacher", "student", "cka", "similarity"),
}
"""Words in the names of numbers that this file does not know."""


def numbers_of(train: Iterable[Mapping[str, Any]], heldout: Iterable[Mapping[str, Any]]) -> list[Numbers]:
    """Every number that the lines have, in the order of the page: known ones first, then terms, then the rest by name."""
    keys = dict.fromkeys(key for line in train for key, value in line.items() if is_number(value))
    scores = dict.fromkeys(key for line in heldout for key, value in line.items() if is_number(value))
    found = [_train_number(key) for key in keys if key not in NO_CURVES]
    found += [_score(key, "heldout_top1" in scores) for key in scores if key not in NO_CURVES]
    order, known = list(PARTS), {key: place for place, key in enumerate([*PANELS, *GROUPS])}
    return sorted(found, key=lambda one: (order.index(one.part), known.get(_beside(one.key), len(known)), one.group))


def _beside(key: str) -> str:
    """The known number that a number stands next to: terms follow their sum, layers follow their group."""
    group = key.partition("/")[0]
    return group if group == "loss" or group in GROUPS else key


def is_number(value: Any) -> TypeGuard[float]:
    """True for a number, also one that is not finite."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_finite(value: Any) -> TypeGuard[float]:
    """True for a number with which a scale can be computed."""
    return is_number(value) and abs(value) < 1e300  # False for NaN too


def _train_number(key: str) -> Numbers:
    group, slash, name = key.partition("/")
    if group == "loss" and slash:
        return Numbers(key, "train", f"Term {name}, unweighted", "learning")
    if group in ("weight", "temperature") and slash:
        return Numbers(key, "train", f"{group.capitalize()} of {name}", "learning", group=group)
    if key in PANELS:
        panel = PANELS[key]
        form = _short if key == "learning_rate" else FORMS.get(panel.unit, number)
        unit = panel.unit if panel.unit in UNITS and key != "loss" else ""  # a sum of terms of several units
        return Numbers(key, "train", capital(panel.title), cast(Part, panel.section), form, panel.together if slash else "", unit=unit)
    if group in GROUPS and slash:
        panel = GROUPS[group]
        form = _whole if panel.unit == "layer" else number
        label = f"layer {name}"
        return Numbers(key, "train", f"{capital(panel.title)}: {label}", cast(Part, panel.section), form, panel.title, label)
    words = key.replace("/", " ").replace("_", " ")
    part: Part = next((part for part, known in WORDS.items() if any(word in words for word in known)), "other")
    form = share if any(word in words for word in SHARES) else number
    return Numbers(key, "train", words.capitalize(), part, form, group if slash else "")


def capital(text: str) -> str:
    """With a capital at the beginning."""
    return f"{text[:1].upper()}{text[1:]}"


def _score(key: str, of_text: bool) -> Numbers:
    """of_text: the loss is a cross-entropy; on a task it may be a squared error."""
    name = key.removeprefix("heldout_")
    title = SCORE_TITLES.get(name, name.replace("_", " "))
    form, unit = share if any(word in name for word in SHARES) else number, "nats" if name == "loss" and of_text else ""
    return Numbers(key, "heldout", f"Held-out {title}", "heldout", form, unit=unit)


def points(lines: Iterable[Mapping[str, Any]], key: str, axis: str = "update", begin: float = 0.0, unit: float = 1.0) -> list[Point]:
    """The finite values of a key as (x, y), in the order of the lines. x: (line[axis] - begin) / unit."""
    found = []
    for line in lines:
        x, y = line.get(axis), line.get(key)
        if _is_finite(x) and _is_finite(y):
            found.append(((float(x) - begin) / unit, float(y)))
    return found


def thinned(curve: Sequence[Point], buckets: int = BUCKETS) -> list[Point]:
    """At most 2 x buckets + 2 points: the lowest and the highest of each bucket in their order, the first and the last."""
    if len(curve) <= 2 * buckets + 2:
        return list(curve)
    kept = [curve[0]]
    step = len(curve) / buckets
    for bucket in range(buckets):
        part = range(math.floor(bucket * step), min(len(curve), math.floor((bucket + 1) * step)))
        ends = sorted({min(part, key=lambda n: curve[n][1]), max(part, key=lambda n: curve[n][1])})
        kept += [curve[n] for n in ends]
    return [*kept, curve[-1]]


def samples(curve: Sequence[Point], count: int) -> list[Point]:
    """At most `count` points at even distances, the first and the last among them."""
    if len(curve) <= count:
        return list(curve)
    return [curve[round(n * (len(curve) - 1) / (count - 1))] for n in range(count)]
