"""The limits, the models that meet them, and the cases in which distillation does not pay, each with its figures."""

from collections.abc import Sequence
from dataclasses import dataclass

from launcher.advice.commands import UNKNOWN, export_command
from launcher.advice.option import Option
from launcher.text import duration

MOST_TRAINING = 0.1
"""Of the time between two changes of the data. A student that is trained for longer serves too short a time."""


@dataclass(frozen=True)
class Limits:
    """None: no limit. retained: the least share of the teacher's metric. days: after which the task's data changes."""

    latency_ms: float | None
    size_mb: float | None
    retained: float
    calls_per_day: float | None
    days: float | None

    def _parts(self, option: Option) -> list[float | None]:
        """Figure over limit for each limit; None where the figure was not measured reliably."""
        parts: list[float | None] = []
        if self.latency_ms is not None:
            parts.append(None if option.p95_ms is None or not option.trusted else option.p95_ms / self.latency_ms)
        if self.size_mb is not None:
            parts.append(None if option.bytes is None else option.bytes / 1e6 / self.size_mb)
        if option.retained is None:
            return [*parts, None]
        return [*parts, self.retained / option.retained if option.retained > 0 else float("inf")]

    def excess(self, option: Option) -> float | None:
        """The largest of figure over limit: at most 1 where all are met; None where one was not measured reliably."""
        parts = self._parts(option)
        known = [part for part in parts if part is not None]
        return max(known) if len(known) == len(parts) else None

    def misses(self, option: Option) -> bool:
        """True if a measured figure misses its limit, whatever the others are."""
        return any(part is not None and part > 1 for part in self._parts(option))

    def meets(self, option: Option) -> bool:
        """True if every limit is measured and met."""
        excess = self.excess(option)
        return excess is not None and excess <= 1


@dataclass(frozen=True)
class Rule:
    """One case. applies: True, False, or None where a figure that it needs was not measured. text: the figures."""

    name: str
    applies: bool | None
    text: str


def pareto(options: Sequence[Option]) -> list[Option]:
    """The options that no other one equals or beats in metric, time and size at once. Options with an unmeasured figure are left out."""
    whole = [one for one in options if None not in (one.value, one.p95_ms, one.bytes) and one.trusted]

    def costs(one: Option) -> tuple[float, float, float]:
        return -float(one.value or 0), float(one.p95_ms or 0), float(one.bytes or 0)

    return [
        one
        for one in whole
        if not any(all(a <= b for a, b in zip(costs(other), costs(one), strict=True)) and costs(other) != costs(one) for other in whole)
    ]


def cheapest(options: Sequence[Option], limits: Limits) -> Option | None:
    """The option that meets all limits with the least CPU time for a call, the smaller of equals."""
    met = [one for one in options if limits.meets(one)]
    return min(met, key=lambda one: (one.cpu_ms if one.cpu_ms is not None else float("inf"), one.bytes or 0), default=None)


def nearest(options: Sequence[Option], limits: Limits) -> Option | None:
    """The option that misses its worst limit by the smallest factor; None where no option has all figures."""
    known = [(excess, number) for number, one in enumerate(options) if (excess := limits.excess(one)) is not None]
    return options[min(known)[1]] if known else None


def rules(options: Sequence[Option], limits: Limits, task: str = "TASK") -> list[Rule]:
    """The cases in which distillation does not pay, in the order of their weight."""
    return [
        _teacher_is_enough(options, limits, task),
        _gap(options, limits),
        _repaid(options, limits),
        _data_changes(options, limits),
        _prototype(limits),
    ]


def _teacher_is_enough(options: Sequence[Option], limits: Limits, task: str) -> Rule:
    name = "the teacher in 8 bits, or unchanged, meets the target"
    teachers = [one for one in options if one.teacher]
    met = [one for one in teachers if limits.meets(one)]
    if met:
        best = min(met, key=lambda one: one.p95_ms or 0)
        return Rule(name, True, f"{best.title} meets every limit: {figures(best)}")
    quantised = [one for one in teachers if "int8" in one.form]
    unknown = [one for one in teachers if limits.excess(one) is None]
    if not teachers:
        return Rule(name, None, f"{UNKNOWN}: no report of the teacher; run: stillhouse task train --config {task}")
    if not quantised:
        return Rule(name, None, f"{UNKNOWN}: no INT8 export of the teacher; run: {export_command(_plain(teachers), task)}")
    if unknown:
        missing = ", ".join(one.title for one in unknown)
        return Rule(name, None, f"{UNKNOWN}: figures of {missing}; run the commands below")
    return Rule(name, False, "; ".join(f"{one.title}: {figures(one)}" for one in quantised))


def _plain(models: Sequence[Option]) -> Option:
    """The first model as it was trained, before exports of it."""
    return next((one for one in models if one.form == "torch fp32"), models[0])


def _gap(options: Sequence[Option], limits: Limits) -> Rule:
    name = "the quality gap matters more"
    students = [one for one in options if not one.teacher and one.retained is not None]
    if not students:
        return Rule(name, None, "not measured: no student has a score beside a teacher's; run: stillhouse retention --config YAML")
    best = max(students, key=lambda one: one.retained or 0)
    interval = "" if best.retained_interval is None else f" (95 %: {best.retained_interval[0]:.1%} to {best.retained_interval[1]:.1%})"
    text = f"the best student retains {best.retained:.1%}{interval}, asked for {limits.retained:.1%}: {best.title}"
    if best.retained_interval is not None and best.retained_interval[0] < limits.retained <= best.retained_interval[1]:
        text += "; the interval includes the limit, so more rows or seeds decide"
    return Rule(name, (best.retained or 0) < limits.retained, text)


def _repaid(options: Sequence[Option], limits: Limits) -> Rule:
    """Training costs seconds of the device that ran it. A call saves CPU time against the teacher's fastest form."""
    name = "too few calls before the task's data changes"
    teachers = [one for one in options if one.teacher and one.cpu_ms is not None and one.trusted]
    students = [one for one in options if not one.teacher and one.cpu_ms is not None and one.seconds and one.trusted]
    if not teachers or not students:
        lacking = "a teacher" if not teachers else "a student with a run"
        return Rule(name, None, f"{UNKNOWN}: reliable times of {lacking}; run the commands below")
    base = min(teachers, key=lambda one: one.cpu_ms or 0)
    met = [one for one in students if limits.meets(one)] or students
    best = min(met, key=lambda one: one.cpu_ms or 0)
    saved = (base.cpu_ms or 0) - (best.cpu_ms or 0)
    cost = f"training {best.name} took {duration(best.seconds or 0)} {best.device_time}"
    if saved <= 0:
        return Rule(name, True, f"{cost}, and {best.title} saves no CPU time against {base.title}")
    calls = 1000 * (best.seconds or 0) / saved
    text = f"{cost}; {best.title} saves {saved:.2f} ms of CPU time a call against {base.title}, so {calls:,.0f} calls repay it"
    if best.device not in (None, "cpu"):
        text += ", where a second of the GPU costs as much as one of the CPU"
    if limits.calls_per_day is None:
        return Rule(name, None, f"{text}; give --calls-per-day")
    days = calls / limits.calls_per_day
    text += f": {days:,.2g} days at {limits.calls_per_day:,.0f} calls a day"
    if limits.days is None:
        return Rule(name, None, f"{text}; it does not pay if the task's data changes sooner (--data-changes-days)")
    return Rule(name, days > limits.days, f"{text}, and the data changes every {limits.days:g} days")


def _data_changes(options: Sequence[Option], limits: Limits) -> Rule:
    """Each change of the task's data asks for a new student. It has to be trained before the next change."""
    name = "the task's data changes often"
    trained = [one for one in options if not one.teacher and one.seconds]
    if not trained:
        return Rule(name, None, f"{UNKNOWN}: no student has a run with its time; run: stillhouse task train")
    best = max((one for one in trained if one.retained is not None), key=lambda one: one.retained or 0, default=trained[0])
    seconds = best.seconds or 0
    text = f"training {best.name!r} anew takes {duration(seconds)} {best.device_time}"
    if limits.days is None:
        return Rule(name, None, f"{text}; give --data-changes-days")
    share = seconds / (86400 * limits.days)
    return Rule(name, share > MOST_TRAINING, f"{text}, {share:.2%} of the {limits.days:g} days until the data changes")


def _prototype(limits: Limits) -> Rule:
    name = "early prototyping: it is not known if the model will be used at scale"
    if limits.calls_per_day is None:
        return Rule(name, None, f"{UNKNOWN}: count the calls of a day, and give --calls-per-day")
    return Rule(name, False, f"{limits.calls_per_day:,.0f} calls a day are expected")


def figures(option: Option) -> str:
    """An option's figures in words."""
    time = (
        "time not measured"
        if option.p95_ms is None
        else f"{option.p95_ms:.2f} ms" + ("" if option.trusted else " (other processes had the core)")
    )
    size = "size not measured" if option.bytes is None else f"{option.bytes / 1e6:.1f} MB"
    kept = "retention not measured" if option.retained is None else f"{option.retained:.1%} retained"
    return f"{time}, {size}, {kept}"
