"""Finished runs of a proof as the results of a report: scores, intervals, curves, and predictions in the report's form."""

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from data_shards.tasks.examples import Examples
from launcher.comparison.jobs import Job
from launcher.comparison.settings import folder_name
from launcher.errors import LaunchError
from launcher.report.results import CurvePoint, Exported, Model, Prediction, Results, Run, Task
from launcher.retention.exports import described, read_exports
from launcher.retention.finished import Finished, chose_on_train, report_of
from launcher.retention.latency import latencies_of
from launcher.retention.plan import Plan
from launcher.retention.settings import TEACHER
from launcher.run_folder.metrics_file import METRICS, read
from launcher.tasks.finish import PREDICTIONS
from stillhouse.files import write_atomically

FOLDER = "predictions"
PACKAGES = ("stillhouse", "torch", "transformers", "numpy")


def results_of(plan: Plan, finished: dict[str, Finished], notes: list[str]) -> Results | None:
    """The results of the tasks whose teacher is done; None if there is none. Writes predictions below the folder."""
    latency = latencies_of(plan, finished)
    exports = read_exports(plan, finished) if plan.settings.int8 else {}
    described_exports = {
        task: {model: described(one, latency.exported.get(model)) for model, one in models.items()} for task, models in exports.items()
    }
    tasks = [
        task_results(plan, name, runs, latency.milliseconds, described_exports.get(name, {}))
        for name, runs in finished.items()
        if runs.get(TEACHER)
    ]
    if not tasks:
        return None
    settings = plan.settings
    chosen = {report_of(job)["chosen_on"] for runs in finished.values() for jobs in runs.values() for job in jobs.values()}
    lines = [f"Weights were chosen on {text}." for text in sorted(chosen)]
    if any(len(settings.learner(name).learning_rates) > 1 for name in plan.learners):
        reports = [report_of(job) for runs in finished.values() for jobs in runs.values() for job in jobs.values()]
        if all(chose_on_train(report) for report in reports):
            lines.append(f"Learning rates were chosen on the same part of train, with seed {settings.seeds[0]}.")
        else:
            lines.append(f"Learning rates were chosen on dev with seed {settings.seeds[0]}: dev scores are flattered by that choice.")
    lines.append("The student of a seed learns from the teacher of the same seed.")
    for task, models in described_exports.items():
        lines += [f"{task}: {model} in {one.form}: {'; '.join(one.problems)}." for model, one in models.items() if one.problems]
    if described_exports:
        lines.append(f"Exported files are those of seed {settings.seeds[0]}. A score of theirs is of one run.")
    return Results(
        title=settings.title or plan.root.name,
        tasks=tasks,
        margin=settings.margin,
        notes=[*lines, *notes],
        latency=latency.text,
        latency_command=latency.command,
        environment={name: found for name in PACKAGES if (found := _version(name))},
    )


def task_results(plan: Plan, name: str, runs: Finished, milliseconds: dict[str, float], exports: dict[str, Exported]) -> Task:
    """One task with its teacher and the students that have at least one finished run. milliseconds, exports: by model."""
    settings, first = plan.settings, report_of(next(iter(runs[TEACHER].values())))
    kind, key, labels = first["task"]["kind"], first["task"]["metric"], list(first["task"]["labels"])
    dev = plan.source(name).splits["dev"]
    models = []
    for learner in plan.learners:
        made = [_run(plan, name, learner, seed, job, dev, labels) for seed, job in runs.get(learner, {}).items()]
        if not made:
            continue
        report = report_of(next(iter(runs[learner].values())))
        student = None if learner == TEACHER else settings.students[learner]
        other = None if student is None else student.without_teacher
        models.append(
            Model(
                name=learner,
                role=plan.role(learner),
                runs=made,
                parameters=report["parameters"],
                bytes=report["bytes"],
                latency_ms=milliseconds.get(learner),
                exported=exports.get(learner),
                without_teacher=other if other is not None and runs.get(other) else None,
                pretraining_tokens=plan.pretraining_tokens(learner),
                transfer_set=plan.has_transfer_set(name, learner),
                random_start=student is not None and student.start == "random",
                settings={} if student is None else plan.further_settings(name, learner),
            )
        )
    return Task(
        name=name,
        title=settings.tasks[name].title or name,
        kind=kind,
        metric=key,
        constant=first["dev"]["constant"][key],
        examples=len(dev),
        train_examples=first["rows"]["train"],
        small_and_noisy=settings.tasks[name].noisy,
        labels=labels if kind == "classification" else [],
        models=models,
    )


def _run(plan: Plan, task: str, learner: str, seed: int, job: Job, dev: Examples, labels: list[str]) -> Run:
    report = report_of(job)
    key, scores = report["task"]["metric"], report["dev"]
    low, high = scores["intervals"][key]
    name = f"{FOLDER}/{folder_name(task)}-{folder_name(learner)}-{seed}.jsonl"
    (plan.root / FOLDER).mkdir(exist_ok=True)
    lines = predictions(job.folder / PREDICTIONS, dev, report["task"]["kind"], labels)
    write_atomically(plan.root / name, "".join(f"{line.model_dump_json(exclude_none=True)}\n" for line in lines))
    heldout = [line for line in read(job.folder / METRICS) if line["kind"] == "heldout" and f"heldout_{key}" in line]
    return Run(
        seed=seed,
        value=scores[key],
        low=low,
        high=high,
        standard_error=scores["standard_errors"][key],
        scores={other: scores[other] for other in scores["intervals"] if other != key},
        predictions=name,
        curve=[CurvePoint(update=line["update"], value=line[f"heldout_{key}"]) for line in heldout],
    )


def predictions(path: Path, dev: Examples, kind: str, labels: list[str]) -> list[Prediction]:
    """The predictions of a run in the report's form, with the texts of its examples. Raises LaunchError for other examples."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if [row["id"] for row in rows] != dev.ids:
        raise LaunchError(f"{path}: expected the {len(dev)} rows of dev, got others; the data has changed: remove that run's folder")
    numbers = {name: number for number, name in enumerate(labels)}

    def form(value: Any) -> Any:
        if kind == "classification":
            return numbers[value]
        return [int(name in value) for name in labels] if kind == "multi_label" else value

    made = []
    for number, row in enumerate(rows):
        made.append(
            Prediction(
                text=dev.texts[number],
                text_pair=None if dev.pairs is None else dev.pairs[number],
                label=form(row["label"]),
                predicted=form(row["prediction"]),
                scores=_softmax(row["logits"]) if kind == "classification" else None,
            )
        )
    return made


def _softmax(logits: list[float]) -> list[float]:
    values = np.exp(np.array(logits) - max(logits))
    return [round(float(value), 6) for value in values / values.sum()]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
