"""From the finished runs of a comparison on a task to a ranking: means, spread over seeds, bootstrap intervals and differences with noise.

Pure: reports in, values and text out. Two things are noise: another seed gives another student, and other development rows would give
another score. A difference counts if it is larger than both.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.table import Table

from launcher.comparison.statistics import LEAST_PAIRS, Difference, Spread, difference, spread

FORM = ".3f"


@dataclass(frozen=True)
class TaskResults:
    """The results so far. rows: one per finished run (see `row_of`). reference: what the others are compared with; None: the best."""

    name: str
    metric: str
    lower_is_better: bool
    variants: list[str]
    reference: str | None
    rows: list[dict[str, Any]]
    failed: dict[str, str]

    def values(self, variant: str, key: str) -> dict[int, float]:
        """A number by seed, of the finished runs that have it."""
        return {row["seed"]: row[key] for row in self.rows if row["variant"] == variant and row.get(key) is not None}

    def mean(self, variant: str, key: str) -> Spread | None:
        """A number's mean and deviation over seeds."""
        values = self.values(variant, key)
        return spread(list(values.values())) if values else None

    @property
    def ranked(self) -> list[str]:
        """The variants with a finished run, the best first by the metric's mean."""
        means = {name: found.mean for name in self.variants if (found := self.mean(name, self.metric)) is not None}
        return sorted(means, key=lambda name: means[name] if self.lower_is_better else -means[name])

    @property
    def compared_with(self) -> str:
        """The reference, or the best variant."""
        ranked = self.ranked
        return self.reference if self.reference in ranked else ranked[0]

    def difference(self, variant: str) -> Difference | None:
        """The metric's paired difference to the reference."""
        return difference(self.values(variant, self.metric), self.values(self.compared_with, self.metric))

    def rows_noise(self, variant: str) -> float:
        """Half of the bootstrap interval over the development rows: the larger of the variant's mean and the reference's."""
        found = [self.mean(name, "half_interval") for name in (variant, self.compared_with)]
        return max(one.mean for one in found if one is not None)

    def as_dict(self) -> dict[str, Any]:
        """Everything, as plain values."""
        ranking = []
        for name in self.ranked:
            mean, against = self.mean(name, self.metric), self.difference(name) if name != self.compared_with else None
            entry: dict[str, Any] = {"variant": name, "mean": asdict(mean) if mean else None, "rows_noise": self.rows_noise(name)}
            if against is not None:
                noise = {"within_seed_noise": against.within_noise, "within_rows_noise": abs(against.mean) <= self.rows_noise(name)}
                entry["difference"] = asdict(against) | noise
            ranking.append(entry)
        head = {"name": self.name, "metric": self.metric, "compared_with": self.compared_with}
        return head | {"ranking": ranking, "failed": self.failed, "runs": self.rows}


def row_of(variant: str, seed: int, report: Mapping[str, Any]) -> dict[str, Any]:
    """One finished run, from its report.json. half_interval: of the deciding metric, over the rows of dev."""
    key = report["task"]["metric"]
    dev = report["dev"]
    low, high = dev["intervals"][key]
    teachers = [teacher[key] for teacher in report["teachers"]]
    row = {"variant": variant, "seed": seed, "rows": dev["rows"], **{name: dev[name] for name in dev["intervals"]}}
    row |= {"half_interval": (high - low) / 2, "standard_error": dev["standard_errors"][key], "constant": dev["constant"][key]}
    row["retained"] = dev[key] / teachers[0] if len(teachers) == 1 and teachers[0] else None
    return row | {"updates": report["updates"], "parameters": report["parameters"], "seconds": report["elapsed_seconds"]}


def ranking_table(results: TaskResults) -> Table:
    """One row a variant, the best first."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("variant (runs)", overflow="fold", max_width=24)
    taught = any(row["retained"] is not None for row in results.rows)
    headings = [results.metric, "rows ±", *(["retained"] if taught else []), "difference", "updates", "seconds"]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for name in results.ranked:
        mean, half = results.mean(name, results.metric), results.mean(name, "half_interval")
        assert mean is not None
        assert half is not None
        cells = [_spread(mean), f"{half.mean:{FORM}}"]
        if taught:
            kept = results.mean(name, "retained")
            cells.append("-" if kept is None else f"{kept.mean:.1%}")
        cells.append("" if name == results.compared_with else _difference(results, name))
        for key, form in (("updates", ",.0f"), ("seconds", ",.0f")):
            cost = results.mean(name, key)
            cells.append("-" if cost is None else f"{cost.mean:{form}}")
        table.add_row(f"{name} ({mean.count})", *cells)
    return table


def legend(results: TaskResults) -> dict[str, str]:
    """The meaning of each column, by heading."""
    taught = {"retained": "share of the teacher's score"} if any(row["retained"] is not None for row in results.rows) else {}
    return {
        results.metric: "mean over the seeds on dev ± standard deviation",
        "rows ±": "half of the 95 % bootstrap interval over the rows of dev, mean over the seeds",
        **taught,
        "difference": f"minus {results.compared_with}, seed by seed, ± half of Student's interval; ≈ within the noise, ? too few seeds",
        "seconds": "from start to end",
    }


def verdicts(results: TaskResults) -> list[str]:
    """One sentence a variant, then what the comparison cannot say."""
    lines = [_verdict(results, name) for name in results.ranked if name != results.compared_with]
    rows = {row["rows"] for row in results.rows}
    counts = f"{min(rows):,}" if len(rows) == 1 else f"{min(rows):,} to {max(rows):,}"
    lines.append(
        f"A difference is within the noise if 0 is in its interval over the seeds, or if it is below the interval of dev's {counts} rows."
    )
    best = results.ranked[0]
    own, constant = results.mean(best, results.metric), results.mean(best, "constant")
    error = results.mean(best, "standard_error")
    if own and constant and error and abs(own.mean - constant.mean) < 2 * error.mean:
        lines.append(
            f"No variant is two standard errors better than a constant prediction ({constant.mean:{FORM}}): the ranking says nothing."
        )
    fewest = min((len(results.values(name, results.metric)) for name in results.ranked), default=0)
    if fewest < LEAST_PAIRS:
        lines.append(f"Few seeds: at least {LEAST_PAIRS} are needed to tell a difference from noise; add some and start again.")
    if len(results.ranked) > 1:
        lines.append("The best of several variants on dev is flattered by the choice; score it on rows that did not choose.")
    return lines


def rows_csv(results: TaskResults) -> str:
    """One line a run."""
    keys = list(dict.fromkeys(key for row in results.rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, keys, lineterminator="\n")
    writer.writeheader()
    writer.writerows(results.rows)
    return text.getvalue()


def sentence(name: str, metric: str, row: Mapping[str, Any]) -> str:
    """A finished run in one line."""
    kept = "" if row["retained"] is None else f", {row['retained']:.1%} of the teacher"
    return f"{name}: {metric} {row[metric]:{FORM}} ± {row['half_interval']:{FORM}} on {row['rows']:,} rows of dev{kept}"


def _verdict(results: TaskResults, name: str) -> str:
    against = results.difference(name)
    if against is None:
        return f"{name}: no seed that {results.compared_with} has too"
    noise = results.rows_noise(name)
    margin = "" if against.margin is None else f" ± {against.margin:{FORM}}"
    text = f"{results.metric} {against.mean:+{FORM}}{margin}"
    causes = ["the seeds"] if against.within_noise else []
    causes += [f"dev's rows (± {noise:{FORM}})"] if abs(against.mean) <= noise else []
    if causes:
        return f"{name}: within the noise of {' and of '.join(causes)}: {text}"
    if against.within_noise is None:
        pairs = "one pair" if against.pairs == 1 else f"{against.pairs} pairs"
        return f"{name}: {text} over {pairs} of runs: too few to tell from noise"
    better = (against.mean < 0) == results.lower_is_better
    return f"{name}: {'better' if better else 'worse'} than {results.compared_with}, beyond the noise: {text}"


def _spread(estimate: Spread) -> str:
    return f"{estimate.mean:{FORM}}" + ("" if estimate.deviation is None else f" ± {estimate.deviation:{FORM}}")


def _difference(results: TaskResults, name: str) -> str:
    against = results.difference(name)
    if against is None:
        return "-"
    within = against.within_noise or abs(against.mean) <= results.rows_noise(name)
    mark = " ≈" if within else " ?" if against.within_noise is None else ""
    return f"{against.mean:+{FORM}}" + ("" if against.margin is None else f" ± {against.margin:{FORM}}") + mark


def table_of(rows: Sequence[Sequence[str]], headings: Sequence[str]) -> Table:
    """A plain table; the first column is text."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
