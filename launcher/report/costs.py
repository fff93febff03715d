"""Quality against size and latency: the charts, and the table beside them. An exported model is a point and a row of its own."""

from collections.abc import Callable
from dataclasses import dataclass

from kd.tasks.metrics.statistics import macro
from launcher.report import charts
from launcher.report.results import Model, Results
from launcher.report.verdicts import points
from launcher.text import size

Form = Callable[[float], str]


@dataclass(frozen=True)
class Cost:
    """A model or its exported file on one task. value: its metric; None where it was not measured."""

    value: float | None
    parameters: float | None
    bytes: float | None
    latency_ms: float | None


def cost_charts_of(results: Results, series: dict[str, int]) -> tuple[list[tuple[str, str]], list[str], dict[str, int]]:
    """The charts with their titles, a sentence for each that cannot be drawn, and the series of every point."""
    costs = costs_of(results)
    own = series | {name: len(series) + number for number, name in enumerate(name for name in costs if name not in series)}
    axes: list[tuple[str, str, Form]] = [("parameters", "parameters", millions), ("latency_ms", "latency, ms per example", milliseconds)]
    if len(costs) > len(series):
        axes.insert(1, ("bytes", "size on disk, MB", _megabytes))
    drawn, missing = [], []
    for attribute, title, form in axes:
        places = _places(costs, attribute, list(series) if attribute == "parameters" else list(costs))
        if len(places) > 1:
            drawn.append((f"Quality against {title}", charts.against_cost(f"cost-{attribute}", places, own, title, form, "mean score")))
        else:
            missing.append(f"No chart of quality against {title}: fewer than two models have the figure.")
    return drawn, missing, own


def cost_rows(results: Results) -> list[dict[str, str]]:
    """Name, parameters, bytes, latency and mean score of each model as text; then those of exported models."""
    return [_cost_row(name, costs) for name, costs in costs_of(results).items()]


def costs_of(results: Results) -> dict[str, dict[str, Cost]]:
    """Name -> task -> cost. Exported models follow the others, with their form behind the name."""
    found: dict[str, dict[str, Cost]] = {}
    exported: dict[str, dict[str, Cost]] = {}
    for task in results.tasks:
        for model in task.models:
            found.setdefault(model.name, {})[task.name] = Cost(_mean_value(model), model.parameters, model.bytes, model.latency_ms)
            if (file := model.exported) is not None:
                cost = Cost(file.value, model.parameters, file.bytes, file.latency_ms)
                exported.setdefault(f"{model.name}, {file.form}", {})[task.name] = cost
    return found | exported


def _places(costs: dict[str, dict[str, Cost]], attribute: str, names: list[str]) -> list[charts.Place]:
    """Models with that cost, on every task on which such models were scored."""
    having = {name: mean for name in names if (mean := _mean(costs[name], attribute)) is not None}
    scored = {name: {task for task, cost in costs[name].items() if cost.value is not None} for name in having}
    having = {name: mean for name, mean in having.items() if scored[name]}
    common = set.intersection(*(scored[name] for name in having)) if having else set()
    places = []
    for name, cost in having.items():
        quality = macro({task: one.value for task, one in costs[name].items() if task in common and one.value is not None})
        if quality is not None:
            places.append(charts.Place(name, cost, quality))
    return places


def _mean(costs: dict[str, Cost], attribute: str) -> float | None:
    """The mean of a figure over the tasks that have it: heads of tasks differ a little."""
    values = [getattr(cost, attribute) for cost in costs.values() if getattr(cost, attribute) is not None]
    return macro({str(number): float(value) for number, value in enumerate(values)})


def _cost_row(name: str, costs: dict[str, Cost]) -> dict[str, str]:
    parameters, on_disk, latency, value = (_mean(costs, key) for key in ("parameters", "bytes", "latency_ms", "value"))
    return {
        "name": name,
        "parameters": "unknown" if parameters is None else millions(parameters),
        "bytes": "unknown" if on_disk is None else size(on_disk),
        "latency": "not measured" if latency is None else f"{latency:.3g}",
        "score": "not measured" if value is None else points(value),
    }


def _mean_value(model: Model) -> float:
    return sum(run.value for run in model.runs) / len(model.runs)


def millions(value: float) -> str:
    """Parameters."""
    return f"{value / 1e6:.3g} M"


def milliseconds(value: float) -> str:
    """Milliseconds."""
    return f"{value:.3g}"


def _megabytes(value: float) -> str:
    return f"{value / 1e6:.3g}"
