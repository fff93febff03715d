"""From the runs of a comparison to what they say: means with spread, differences with their noise, tables, JSON and CSV.

Pure: rows in, values and text out. The rule for noise is launcher/comparison/statistics.py's.
"""

import csv
import io
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.table import Table

from kd.evaluation import scores
from launcher.comparison.statistics import LEAST_PAIRS, Difference, Spread, difference, spread
from launcher.text import duration


@dataclass(frozen=True)
class Metric:
    """A column: its key in a row, its heading, how it is written, and whether more of it is better."""

    key: str
    heading: str
    form: str
    more_is_better: bool = True
    meaning: str = ""

    def text(self, value: float, sign: str = "") -> str:
        return format(value, sign + self.form)


HEADINGS = {"loss": "held-out loss"}
OF_MODELS = tuple(Metric(s.key, HEADINGS.get(s.key, s.heading), s.form, s.more_is_better, s.meaning) for s in scores.SCORES if s.compared)
SCORES = (
    *OF_MODELS[:2],
    Metric("retention", "retained", ".1%", meaning=scores.RETAINED),
    *OF_MODELS[2:],
    Metric("similarity_last", "CKA last", ".3f", meaning="similarity of the last hidden states to the teacher's, 0 to 1"),
)
COMPARED = tuple(metric for metric in SCORES if metric.key != "retention")
COSTS = (
    Metric("trained_tokens", "tokens", ",.0f", meaning="tokens that the run learned from"),
    Metric("learning_seconds", "learning s", ",.1f", more_is_better=False, meaning="seconds of updates alone"),
    Metric("wall_seconds", "wall s", ",.0f", more_is_better=False, meaning="seconds from start to end"),
    Metric("tokens_per_second", "tokens/s", ",.0f", meaning="trained tokens per second of updates"),
    Metric("memory_gb", "peak GB", ".2f", more_is_better=False, meaning="highest memory of a rank"),
    Metric("parameters", "weights", ",.0f", more_is_better=False, meaning="parameters of the student"),
)
METRICS_ABREAST = 3
NAME_WIDTH = 24


@dataclass(frozen=True)
class Results:
    """The results of a comparison so far. rows: one per finished run, with variant and seed; failed: why each other run ended."""

    name: str
    budget: str
    reference: str
    variants: list[str]
    rows: list[dict[str, Any]]
    failed: dict[str, str]

    def values(self, variant: str, key: str) -> dict[int, float]:
        """A metric's value by seed, for the finished runs that have it."""
        return {row["seed"]: row[key] for row in self.rows if row["variant"] == variant and row.get(key) is not None}

    def spread(self, variant: str, key: str) -> Spread | None:
        """A metric's mean and deviation over seeds."""
        values = self.values(variant, key)
        return spread(list(values.values())) if values else None

    def difference(self, variant: str, key: str) -> Difference | None:
        """A metric's paired difference to the reference."""
        return difference(self.values(variant, key), self.values(self.reference, key))

    @property
    def others(self) -> list[str]:
        """The variants that are compared with the reference."""
        return [variant for variant in self.variants if variant != self.reference]

    def as_dict(self) -> dict[str, Any]:
        """Everything, as plain values."""
        means = {
            v: {m.key: asdict(estimate) for m in (*SCORES, *COSTS) if (estimate := self.spread(v, m.key)) is not None}
            for v in self.variants
        }
        against = {
            v: {m.key: asdict(paired) | {"within_noise": paired.within_noise} for m in COMPARED if (paired := self.difference(v, m.key))}
            for v in self.others
        }
        head = {"name": self.name, "budget": self.budget, "reference": self.reference}
        return head | {"means": means, "differences": against, "failed": self.failed, "runs": self.rows}


def scores_tables(results: Results) -> list[Table]:
    """Mean and deviation of every score over the seeds."""
    metrics = [metric for metric in SCORES if any(row.get(metric.key) is not None for row in results.rows)]
    names = {f"{variant} ({len(results.values(variant, 'loss'))})": variant for variant in results.variants}
    return _tables("variant (runs)", list(names), metrics, lambda name, metric: _spread(metric, results.spread(names[name], metric.key)))


def costs_tables(results: Results) -> list[Table]:
    """Means of what the runs took, and of the students' number of weights."""
    return _tables("variant", results.variants, list(COSTS), lambda variant, metric: _spread(metric, results.spread(variant, metric.key)))


def differences_tables(results: Results) -> list[Table]:
    """Every other variant minus the reference: mean and half of the 95 % interval, ≈ where that holds 0, ? where seeds are too few."""
    metrics = [metric for metric in COMPARED if results.values(results.reference, metric.key)]
    heading = f"minus {results.reference}"
    return _tables(heading, results.others, metrics, lambda variant, metric: _difference(metric, results.difference(variant, metric.key)))


def legend(results: Results) -> dict[str, str]:
    """The meaning of each column of the three kinds of tables, and of their signs, by heading."""
    shown = [metric for metric in SCORES if any(row.get(metric.key) is not None for row in results.rows)]
    signs = {"±": "standard deviation over the seeds"}
    if results.others:
        signs["±"] += f"; in the tables of differences (minus {results.reference}), half of the 95 % interval"
        signs |= {"≈": "the interval holds 0: within the noise", "?": "too few seeds to tell from noise"}
    return {metric.heading: metric.meaning for metric in (*shown, *COSTS)} | signs


def verdicts(results: Results) -> list[str]:
    """One sentence a variant on its held-out loss, then one on the certainty that this number of seeds allows."""
    lines = []
    metric = COMPARED[0]
    for variant in results.others:
        estimate = results.difference(variant, metric.key)
        if estimate is None:
            lines.append(f"{variant}: no seed that {results.reference} has too")
            continue
        mean, margin = metric.text(estimate.mean, "+"), "" if estimate.margin is None else f" ± {metric.text(estimate.margin)}"
        if estimate.within_noise is None:
            seeds = "one pair" if estimate.pairs == 1 else f"{estimate.pairs} pairs"
            lines.append(f"{variant}: {mean} nats over {seeds} of runs: too few to tell from noise")
        elif estimate.within_noise:
            lines.append(f"{variant}: within the noise ({mean}{margin} nats)")
        else:
            lines.append(f"{variant}: {'worse' if estimate.mean > 0 else 'better'} by {metric.text(abs(estimate.mean))}{margin} nats")
    pairs = [estimate.pairs for variant in results.others if (estimate := results.difference(variant, metric.key)) is not None]
    fewest = min(pairs, default=0)
    lines.append(
        f"Held-out loss against {results.reference}: mean of the differences seed by seed ± half of Student's 95 % interval; "
        f"within the noise when that holds 0. Each interval stands alone: of twenty true zeros, one is expected outside."
    )
    if 0 < fewest < LEAST_PAIRS:
        lines.append(f"Few seeds: at least {LEAST_PAIRS} are needed to tell a difference from noise; add some and start again.")
    return lines


def rows_csv(results: Results) -> str:
    """One line a run: variant, seed, every score and cost."""
    keys = ["variant", "seed", *(m.key for m in (*SCORES, *COSTS)), "bytes", "updates"]
    text = io.StringIO()
    writer = csv.DictWriter(text, keys, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(results.rows)
    return text.getvalue()


def sentence(name: str, row: dict[str, Any]) -> str:
    """A finished run in one line."""
    agrees = "" if row.get("agreement") is None else f", agrees {row['agreement']:.1%}"
    took = f"{row['tokens_per_second']:,.0f} tokens/s, {duration(row['wall_seconds'])}"
    return f"{name}: held-out loss {row['loss']:.3f}, top-1 {row['top1']:.1%}{agrees}, {took}"


def _tables(heading: str, variants: list[str], metrics: list[Metric], cell: Callable[[str, Metric], str]) -> list[Table]:
    """A row a variant, a column a metric, in as many tables as 80 columns need: a number that is cut off says nothing."""
    tables = []
    for start in range(0, len(metrics), METRICS_ABREAST):
        abreast = metrics[start : start + METRICS_ABREAST]
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column(heading, overflow="fold", min_width=min(NAME_WIDTH, max(map(len, variants))), max_width=NAME_WIDTH)
        for metric in abreast:
            table.add_column(metric.heading, justify="right", no_wrap=True)
        for variant in variants:
            table.add_row(variant, *(cell(variant, metric) for metric in abreast))
        tables.append(table)
    return tables


def _spread(metric: Metric, estimate: Spread | None) -> str:
    if estimate is None:
        return "-"
    if estimate.deviation is None or metric in COSTS:
        return metric.text(estimate.mean)
    deviation = f"{100 * estimate.deviation:.1f}" if metric.form.endswith("%") else metric.text(estimate.deviation)
    return f"{metric.text(estimate.mean)} ± {deviation}"


def _difference(metric: Metric, estimate: Difference | None) -> str:
    if estimate is None:
        return "-"
    share = metric.form.endswith("%")
    mean = f"{100 * estimate.mean:+.1f}" if share else metric.text(estimate.mean, "+")
    if estimate.margin is None:
        return f"{mean} ?"
    mark = {True: " ≈", False: "", None: " ?"}[estimate.within_noise]
    margin = f"{100 * estimate.margin:.1f}" if share else metric.text(estimate.margin)
    return f"{mean} ± {margin}{mark}"
