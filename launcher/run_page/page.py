"""The page of one run or several as self-contained HTML: inline style and SVG, no script, no request. Every text is escaped."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from launcher.config.yaml_file import dump_yaml
from launcher.report import svg
from launcher.report.svg import legend_line
from launcher.run_page import facts
from launcher.run_page.events import event_rows, saving
from launcher.run_page.facts import Fact
from launcher.run_page.figures import Figures, figures
from launcher.run_page.numbers import BUCKETS, is_number
from launcher.run_page.record import Line, Record
from launcher.text import share

FOLDER = Path(__file__).parent
MOST_BYTES = 1_500_000
FEWER = (BUCKETS, 150, 40, 10)
"""Buckets of a curve: fewer where the page would be larger than MOST_BYTES."""
TEXT_LIMIT, LABEL_LIMIT, YAML_LIMIT = 500, 60, 40_000
WRONG, RIGHT, GUESSES = 8, 4, 5
"""Predictions shown of each kind, and first guesses of a model."""
SIMILARITY = re.compile(r"^\s*(\d+)\s+((?:-?\d\.\d\d\*?\s*)+)$")


@dataclass(frozen=True)
class Similarity:
    """A table of layer similarities: a row per student layer, (value, 0 .. 1 for the shade, whether the pair is in the map) per cell."""

    title: str
    rows: list[tuple[str, list[tuple[str, float, bool]]]]


@dataclass(frozen=True)
class Run:
    """The content of the page about one run."""

    number: int
    label: str
    record: Record
    facts: dict[str, str]
    terms: list[Fact]
    similarities: list[Similarity]
    predictions: list[Line]
    rights: str
    warnings: list[list[str]]
    events: list[list[str]]
    saving: str
    environment: list[Fact]
    commands: list[Fact]
    caveats: list[str]
    yaml: str
    missing: list[str]


def page(records: Sequence[Record], written: float | None = None) -> str:
    """The page as HTML, below MOST_BYTES. written: when, in UNIX seconds; None: now."""
    labels = labels_of(records)
    runs = [_run(number, label, record) for number, (label, record) in enumerate(zip(labels, records, strict=True))]
    for buckets in FEWER:
        text = _render(runs, figures(records, labels, buckets), time.time() if written is None else written)
        if len(text.encode("utf-8", "replace")) < MOST_BYTES:
            break
    return text


def labels_of(records: Sequence[Record]) -> list[str]:
    """A short name for each run, different for each: its name, its folder where names are the same, and a number where folders are."""
    names = [record.name for record in records]
    if len(set(names)) < len(names):
        folders = [str(record.folder) for record in records]
        names = [folder if len(folder) <= LABEL_LIMIT else f"…{folder[1 - LABEL_LIMIT :]}" for folder in folders]
    names = [clipped(name, LABEL_LIMIT) for name in names]
    return [f"{name} ({names[:n].count(name) + 1})" if names.count(name) > 1 else name for n, name in enumerate(names)]


def clipped(value: Any, limit: int = TEXT_LIMIT) -> str:
    """At most `limit` characters on one line, without control characters."""
    text = str(value)
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text[: 4 * limit]).split())
    return line if len(line) <= limit else f"{line[:limit]}…"


def guesses(values: Any) -> list[tuple[str, str]]:
    """(token, its probability) of a model's first guesses; what is none is left out."""
    pairs = (
        [pair for pair in values if isinstance(pair, list) and len(pair) == 2 and is_number(pair[1])] if isinstance(values, list) else []
    )
    return [(str(word), share(chance)) for word, chance in pairs[:GUESSES]]


def _render(runs: Sequence[Run], drawn: Figures, written: float) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((FOLDER / "page.html").read_text(encoding="utf-8"))
    style = "".join(path.read_text(encoding="utf-8") for path in (Path(svg.__file__).with_name("page.css"), FOLDER / "page.css"))
    return template.render(
        runs=runs,
        title=clipped(runs[0].label if len(runs) == 1 else f"{len(runs)} runs: {', '.join(run.label for run in runs)}", 200),
        style=Markup(style),
        written=time.strftime("%Y-%m-%d %H:%M", time.gmtime(written)),
        all_facts=list(dict.fromkeys(what for run in runs for what in run.facts)),
        differences=facts.differences([run.record for run in runs]) if len(runs) > 1 else [],
        drawn=drawn,
        line=lambda series: Markup(legend_line(series)),
        markup=Markup,
        clipped=clipped,
        label=partial(clipped, limit=LABEL_LIMIT),
        guesses=guesses,
    )


def _run(number: int, label: str, record: Record) -> Run:
    missing = list(record.missing)
    similarities = [*_similarities(record.layer_maps), *_similarities(record.layer_similarity)]
    if not record.train:
        missing.append("curves (no train line yet)")
    if not record.heldout:
        missing.append("held-out scores (no evaluation yet)")
    if not similarities and not any(key.startswith("cka/") for line in record.train for key in line):
        missing.append("layer similarity (layer_map: cka or evaluate.layer_similarity_every records it)")
    if not record.predictions and not record.samples:
        missing.append("sample predictions (evaluations and the end of a task record them)")
    if not record.environment.get("data"):
        missing.append("manifest of the data (environment.json has none)")
    wrong = [line for line in record.predictions if not _is_right(line)]
    right = [line for line in record.predictions if _is_right(line)]
    rights = f"{len(right):,} of {len(record.predictions):,} predictions equal their label. The first wrong ones come first."
    if facts.section(record.report, "task").get("kind") == "regression":
        rights = f"Some of {len(record.predictions):,} predictions. The largest errors come first, the smallest last."
    if record.samples and "student" in record.samples[0]:
        rights = f"First guesses after update {record.samples[0].get('update', '?')}. _ is another masked token. A right guess is in bold."
    warnings, events = event_rows(record.events)
    yaml = dump_yaml(record.values) if record.values else ""
    return Run(
        number=number,
        label=label,
        record=record,
        facts=dict(facts.facts(record)),
        terms=facts.terms(record),
        similarities=similarities,
        predictions=list(record.samples[: WRONG + RIGHT]) or [*wrong[:WRONG], *right[:RIGHT]],
        rights=rights,
        warnings=warnings,
        events=events,
        saving=saving(record.events),
        environment=facts.environment(record),
        commands=facts.commands(record),
        caveats=facts.caveats(record),
        yaml=yaml if len(yaml) <= YAML_LIMIT else f"{yaml[:YAML_LIMIT]}\n# … cut here: config.yaml has all of it",
        missing=missing,
    )


def _is_right(line: Line) -> bool:
    """True if a prediction is its label, or one of the answers of a question. A question without an answer has an empty prediction."""
    label, prediction = line.get("label"), line.get("prediction")
    return prediction == label or (isinstance(prediction, str) and isinstance(label, list) and prediction in (label or [""]))


def _similarities(text: str) -> list[Similarity]:
    """The tables of layer_maps.txt and layer_similarity.txt; a line that is no row of one begins the next."""
    found: list[Similarity] = []
    title, rows = "Student layers and teacher layers", []
    for line in [*text.splitlines()[:2000], ""]:
        match = SIMILARITY.match(line)
        if match:
            cells = match[2].split()
            rows.append((match[1], [(cell.rstrip("*"), _shade(cell), cell.endswith("*")) for cell in cells]))
            continue
        if rows:
            found.append(Similarity(title, rows))
            rows = []
        if line.startswith("teacher "):
            title = clipped(f"Student layers and layers of {line}", LABEL_LIMIT)
        if line.startswith("update "):
            title = clipped(f"Student layers and teacher layers after {line}", LABEL_LIMIT)
    return found


def _shade(cell: str) -> float:
    return max(0.0, min(1.0, float(cell.rstrip("*"))))
