"""The models of a task that could be shipped, each with the figures that were measured for it. A figure that is None was not measured."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from launcher.advice.exports import exports_of, weight_files
from launcher.advice.files import Measured
from launcher.advice.option import Option, Options, Shape
from launcher.comparison.settings import folder_name
from launcher.deployment.timing.figures import Row
from launcher.errors import LaunchError
from launcher.text import counted


def options_of(measured: Measured, task: str, shape: tuple[int | None, int | None, int | None]) -> Options:
    """The options of one task. shape: batch, tokens and threads of the times; None: those that most models were measured at.

    Raises LaunchError where no report has the task.
    """
    models, known = _of_proofs(measured, task)
    models += [one for one in _of_runs(measured, task) if one.folder.resolve() not in known]
    if not models:
        names = sorted({str(name) for name in _task_names(measured)})
        raise LaunchError(f"--task {task}: expected a task with a report, got none; reports have: {', '.join(names) or 'no task'}")
    left_out = list(measured.others)
    exports, foreign = exports_of(measured, models)
    if foreign:
        left_out.append(f"{counted(foreign, 'export')} of other models than those of {task}")
    models += exports
    chosen, processor = _add_times(measured, models, shape, left_out)
    return Options(task, models, chosen, processor, left_out)


def _task_names(measured: Measured) -> Iterable[str]:
    for report in measured.proofs.values():
        for one in report["tasks"]:
            yield one["task"]
    proofs = {path.parent for path in measured.proofs}
    for path, report in measured.runs.items():
        if report["task"].get("preset"):
            yield report["task"]["preset"]
        elif proofs.isdisjoint(path.parents):
            yield report["name"]


def _same(one: str | None, other: str) -> bool:
    def plain(text: str) -> str:
        return "".join(letter for letter in text.rpartition("/")[2].lower() if letter.isalnum())

    return one is not None and plain(one) == plain(other)


def _of_proofs(measured: Measured, task: str) -> tuple[list[Option], set[Path]]:
    """The models of retention reports with the figures of the report, and the student folders of all their runs.

    A model's folders are those of the seeds at its chosen learning rate. Its time of training is that of all its runs.
    """
    made, known = [], set()
    for path, proof in measured.proofs.items():
        for entry in proof["tasks"]:
            if not (_same(entry["task"], task) or _same(entry["title"], task)):
                continue
            for model in entry["models"]:
                below = path.parent / folder_name(entry["task"]) / folder_name(model["model"])
                runs = {place: report for place, report in measured.runs.items() if below in place.parents}
                known |= {(place.parent / "student").resolve() for place in runs}
                chosen = _of_chosen_rate(runs, entry["metric"], model["value"])
                place = min(chosen, default=None)
                report = runs[place] if place is not None else {}
                made.append(
                    Option(
                        name=model["model"],
                        form="torch fp32",
                        folder=place.parent / "student" if place is not None else below,
                        teacher=model["role"] == "teacher",
                        metric=entry["metric"],
                        value=model["value"],
                        retained=1.0 if model["role"] == "teacher" else model["retained"],
                        retained_interval=model["retained_interval"],
                        bytes=model["bytes"],
                        seconds=sum(_seconds(one) for one in runs.values()) if runs else None,
                        device=report.get("device"),
                        folders=tuple(one.parent / "student" for one in sorted(chosen)),
                        config=None if place is None else place.parent / "config.yaml",
                        files=weight_files(report.get("files", {})),
                    )
                )
    return made, known


def _of_chosen_rate(runs: dict[Path, dict[str, Any]], metric: str, value: float) -> list[Path]:
    """The reports of the learning rate that the proof chose: the one with the most seeds, of equals the one with the report's score."""
    by_rate: dict[Path, list[Path]] = {}
    for place in runs:
        by_rate.setdefault(place.parent.parent, []).append(place)

    def fit(places: list[Path]) -> tuple[int, float]:
        return len(places), -abs(sum(runs[place]["dev"][metric] for place in places) / len(places) - value)

    return max(by_rate.values(), key=fit, default=[])


def _of_runs(measured: Measured, task: str) -> list[Option]:
    """Runs on the task that stand alone. A run that others were taught by, or without a teacher, is a teacher where others name it."""
    runs = _with_relatives(
        measured.runs,
        {
            path: report
            for path, report in measured.runs.items()
            if _same(report["task"].get("preset"), task) or _same(report["name"], task)
        },
    )
    taught_by = {str(report.get("teacher")) for report in runs.values()}
    made = []
    for path, report in runs.items():
        key, scores = report["task"]["metric"], report["dev"]
        folder = path.parent / "student"
        teachers = report.get("teachers") or []
        teacher = str(report.get("student")) in taught_by or any(str(folder.resolve()) == name for name in taught_by)
        above = teachers[0][key] if teachers and teachers[0].get(key, 0) > 0 else None
        made.append(
            Option(
                name=str(path.parent),
                form="torch fp32",
                folder=folder,
                teacher=teacher,
                metric=key,
                value=scores[key],
                retained=1.0 if teacher else None if above is None else scores[key] / above,
                bytes=report.get("bytes"),
                seconds=_seconds(report),
                device=report.get("device"),
                folders=(folder,),
                config=path.parent / "config.yaml",
                files=weight_files(report.get("files", {})),
            )
        )
    return made


def _with_relatives(every: dict[Path, dict[str, Any]], runs: dict[Path, dict[str, Any]]) -> dict[Path, dict[str, Any]]:
    """The runs, and those that taught them or learned from them: they have the same task, under another name."""

    def student(path: Path) -> Path:
        return (path.parent / "student").resolve()

    def teacher(report: dict[str, Any]) -> Path | None:
        return Path(str(report["teacher"])).resolve() if report.get("teacher") else None

    while True:
        students, teachers = {student(path) for path in runs}, {teacher(report) for report in runs.values()}
        more = {path: one for path, one in every.items() if path not in runs and (teacher(one) in students or student(path) in teachers)}
        if not more:
            return runs
        runs = runs | more


def _add_times(
    measured: Measured, models: list[Option], asked: tuple[int | None, int | None, int | None], left_out: list[str]
) -> tuple[Shape | None, str | None]:
    """Give the models their times at one shape on one processor: those at which most models were measured."""
    found: list[tuple[Option, Row, str]] = []
    for path in sorted(measured.latencies, key=lambda one: one.stat().st_mtime):
        content = measured.latencies[path]
        files = {(one["model"], one["form"]): one.get("files", {}) for one in content.get("models", [])}
        for row in content["rows"]:
            weights = files.get((row["model"], row["form"]), {})
            mine = [one for one in models if one.files and one.files == weight_files(weights) and one.form == row["form"]]
            found += [(one, row, content["processor"]) for one in mine]

    def shape_of(row: Row) -> Shape:
        return row["batch"], row["length"], row["threads"]

    fits = [one for one in found if all(want in (None, got) for want, got in zip(asked, shape_of(one[1]), strict=True))]
    if not fits:
        return None, None
    counts = Counter((shape_of(row), processor) for _, row, processor in {(id(o), shape_of(r), p): (o, r, p) for o, r, p in fits}.values())
    (batch, length, threads), processor = max(counts, key=lambda key: (counts[key], key[0][0] == 1, key[0][1], -key[0][2], key[1]))
    for option, row, where in fits:
        if (shape_of(row), where) == ((batch, length, threads), processor):  # a later file replaces an earlier one
            option.p95_ms, option.cpu_ms = row["p95_ms"], row["cpu_p50_ms"] / batch
            option.trusted = bool(row["trusted"])
    if others := {where for _, _, where in found} - {processor}:
        left_out.append(f"times on other processors: {'; '.join(sorted(others))}")
    return (batch, length, threads), processor


def _seconds(report: dict[str, Any]) -> float:
    return float(report.get("elapsed_seconds", 0.0)) * float(report.get("ranks", 1))
