"""Figures of `stillhouse latency`: percentiles with intervals, throughput, and the answer to a target."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from launcher.deployment.speed import Timing
from launcher.deployment.timing.candidates import Candidate

MOST_WALL_PER_CPU = 1.2
RESAMPLES = 1000
Row = dict[str, Any]


def row_of(candidate: Candidate, timing: Timing, shape: dict[str, int]) -> Row:
    """The figures of one model at one setting. Milliseconds of wall time of a batch; interval: 95 %, by bootstrap over the repetitions."""
    milliseconds = 1000 * timing.wall
    draws = milliseconds[np.random.default_rng(0).integers(0, len(milliseconds), (RESAMPLES, len(milliseconds)))]
    p50, p95, p99 = (float(value) for value in np.percentile(milliseconds, (50, 95, 99)))
    return {
        "model": candidate.model,
        "form": candidate.form,
        "letter": candidate.letter,
        **shape,
        "p50_ms": p50,
        "p50_interval_ms": _interval(np.median(draws, axis=1)),
        "p95_ms": p95,
        "p95_interval_ms": _interval(np.percentile(draws, 95, axis=1)),
        "p99_ms": p99,
        "cpu_p50_ms": 1000 * float(np.median(timing.cpu)),
        "first_ms": 1000 * timing.first,
        "rows_per_second": 1000 * shape["batch"] / p50,
        "tokens_per_second": 1000 * shape["batch"] * shape["length"] / p50,
        "wall_per_cpu": timing.wall_per_cpu,
        "trusted": timing.wall_per_cpu <= MOST_WALL_PER_CPU,  # several threads can only hide that a core was taken
        "repetitions": len(milliseconds),
    }


def _interval(values: NDArray[np.float64]) -> list[float]:
    low, high = np.percentile(values, (2.5, 97.5))
    return [float(low), float(high)]


@dataclass(frozen=True)
class Verdict:
    """The answer to a target. met: letters of the models that meet it, the fastest first; None where nothing can be said.

    best: the one with the best metric, or the fastest where metrics are not comparable.
    """

    text: str
    met: list[str] | None = None
    best: str | None = None


def verdict_of(rows: Sequence[Row], candidates: Sequence[Candidate], target: float) -> Verdict:
    """The models whose 95th percentile meets the target at every setting, and the best of them; or why nothing can be said."""
    worst = max(rows, key=lambda row: row["wall_per_cpu"])
    if not all(row["trusted"] for row in rows):
        ratio = f"{worst['wall_per_cpu']:.2f} times CPU time ({worst['letter']} {worst['form']}, {shape_text(worst)})"
        return Verdict(
            f"target {target:g} ms: no verdict: wall time was up to {ratio}, so other processes had the core; stop them and measure again"
        )
    names = {one.letter: one.name for one in candidates}
    slowest: dict[str, Row] = {}
    for row in rows:
        if row["letter"] not in slowest or row["p95_ms"] > slowest[row["letter"]]["p95_ms"]:
            slowest[row["letter"]] = row
    order = sorted(slowest, key=lambda letter: slowest[letter]["p95_ms"])
    met = [letter for letter in order if slowest[letter]["p95_ms"] <= target]
    if not met:
        nearest = order[0]
        text = f"no model meets it; the nearest is {names[nearest]} with {slowest[nearest]['p95_ms']:.2f} ms"
        return Verdict(f"target {target:g} ms at p95: {text}", [], None)
    told = ", ".join(f"{names[letter]} ({slowest[letter]['p95_ms']:.2f} ms)" for letter in met)
    text = f"target {target:g} ms at p95 is met by: {told}"
    if close := [letter for letter in met if slowest[letter]["p95_interval_ms"][1] > target]:
        text += f"; within noise of the target: {', '.join(names[letter] for letter in close)}"
    best, reason = _best(met, {one.letter: one for one in candidates})
    text += f"; {reason}"
    if any(row["threads"] > 1 for row in rows):
        text += "; with several threads, wall time over CPU time does not show processes that had one of the cores"
    return Verdict(text, met, best)


def _best(met: list[str], candidates: dict[str, Candidate]) -> tuple[str, str]:
    """The best of the models that meet a target, fastest first, and the reason in words."""
    fastest = candidates[met[0]]
    qualities = {letter: quality for letter in met if (quality := candidates[letter].quality) is not None}
    unknown = [candidates[letter].name for letter in met if letter not in qualities]
    if not qualities:
        return fastest.letter, f"the fastest is {fastest.name}; no quality was measured"
    if len({(one.metric, one.data) for one in qualities.values()}) > 1:
        return fastest.letter, f"the fastest is {fastest.name}; their metrics were measured on different data"
    best = max(qualities, key=lambda letter: qualities[letter].value)  # max keeps the first, so the faster of equals
    chosen = qualities[best]
    text = f"the best of them is {candidates[best].name} ({chosen.metric} {chosen.value:.4f}, {chosen.data})"
    text += "" if best == fastest.letter else f", the fastest is {fastest.name}"
    return best, text + (f"; quality not measured: {', '.join(unknown)}" if unknown else "")


def shape_text(row: Row) -> str:
    """Batch, length and threads of a row in words."""
    return f"{row['batch']} x {row['length']} tokens, {row['threads']} thread{'s' if row['threads'] > 1 else ''}"
