"""Results of a retention proof with realistic figures: simulated predictions of four models, three seeds, seven tasks."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from kd.tasks.metrics.catalogue import metric
from launcher.report.results import Results

HOSTILE = (
    "<script>window.hacked = 1</script>",
    '"><img src="https://example.invalid/x.png" onerror="window.hacked = 1">',
    "</td></table><style>body{display:none}</style>",
    "{{ 7 * 7 }} {% raw %} &amp; 'quoted' | piped `code`",
    "مرحبا بالعالم \u202egnisrever \u0000\u0007 control 🦙 " + "long" * 300,
)
MODELS = {  # name -> role, parameters, milliseconds, share of what the teacher knows
    "teacher 6 x 384": ("teacher", 22_713_216, 9.8, 1.0),
    "student 3 x 384": ("distilled", 17_389_440, 5.1, 0.97),
    "student 3 x 384, task only": ("task_distilled", 17_389_440, 5.1, 0.94),
    "student 3 x 384, fine-tuned": ("fine_tuned", 17_389_440, 5.1, 0.93),
}
PRETRAINED: dict[
    str, tuple[str, int, float, dict[str, Any]]
] = {  # name -> role, parameters, share, and what the report knows of the student's parts
    "layers, distilled": ("task_distilled", 17_389_440, 0.90, {"pretraining_tokens": 0, "settings": {"start": "base"}}),
    "layers, fine-tuned": ("fine_tuned", 17_389_440, 0.86, {"pretraining_tokens": 0, "settings": {"start": "base"}}),
    "400 k, distilled": ("distilled", 17_240_000, 0.91, {"pretraining_tokens": 368_583, "settings": {"start": "a"}}),
    "4 M, distilled": ("distilled", 17_240_000, 0.95, {"pretraining_tokens": 4_000_000, "settings": {"start": "b"}}),
    "4 M, fine-tuned": ("pretraining_distilled", 17_240_000, 0.93, {"pretraining_tokens": 4_000_000, "settings": {"start": "b"}}),
    "4 M, transfer set": (
        "distilled",
        17_240_000,
        0.97,
        {"pretraining_tokens": 4_000_000, "transfer_set": True, "settings": {"start": "b", "epochs": "5"}},
    ),
    "random": ("task_distilled", 17_389_440, 0.6, {"random_start": True}),
}
TASKS = {  # title -> name, kind, metric, examples, training examples, small and noisy, share that the teacher gets right
    "SST-2": ("glue/sst2", "classification", "accuracy", 872, 67_349, False, 0.91),
    "MRPC": ("glue/mrpc", "classification", "f1", 408, 3_668, True, 0.86),
    "CoLA": ("glue/cola", "classification", "matthews", 1_043, 8_551, False, 0.78),
    "RTE": ("glue/rte", "classification", "accuracy", 277, 2_490, True, 0.54),
    "STS-B": ("glue/stsb", "regression", "pearson", 1_500, 5_749, False, 0.8),
    "CoNLL-2003": ("conll2003", "tagging", "entity_f1", 300, 7_020, False, 0.9),
    "SQuAD": ("squad_v2", "question_answering", "f1", 240, 950, False, 0.75),
}
LABELS = {"SST-2": ["negative", "positive"], "MRPC": ["not equivalent", "equivalent"], "CoLA": ["unacceptable", "acceptable"]}


def write_results(
    folder: Path, titles: tuple[str, ...] = tuple(TASKS), seeds: int = 3, predictions: bool = True, pretrained: bool = False
) -> Results:
    """The results of those tasks; their predictions are written below the folder. pretrained: the students of PRETRAINED instead."""
    students = {name: ("teacher", 22_713_216, 1.0, {}) for name in list(MODELS)[:1]} | PRETRAINED
    recipes = students if pretrained else {name: (row[0], row[1], row[3], {"latency_ms": row[2]}) for name, row in MODELS.items()}
    tasks = [_task(folder, title, seeds, predictions, recipes) for title in titles]
    notes = ["Latency: one example of 128 tokens, two cores, median of 200."]
    versions = {"stillhouse": "0.1.0", "torch": "2.13.0"}
    return Results.model_validate({"title": "Retention of a 6 x 384 encoder", "tasks": tasks, "notes": notes, "environment": versions})


def _task(folder: Path, title: str, seeds: int, predictions: bool, recipes: dict[str, Any]) -> dict[str, Any]:
    name, kind, key, examples, trained, noisy, right = TASKS[title]
    generator = np.random.default_rng(len(title) + examples)
    labels = _labels(kind, examples, generator)
    row = metric(kind, key)  # type: ignore[arg-type]
    hard = generator.random(examples)
    models: list[dict[str, Any]] = []
    for model, (role, parameters, kept, more) in recipes.items():
        runs = []
        for seed in range(seeds):
            noise = np.random.default_rng([seed, len(model), examples])
            sure = np.clip(right + (0.5 - hard) * 0.25 + noise.normal(0, 0.006), 0, 1) * kept + (1 - kept) * 0.5
            correct = noise.random(examples) * 0.06 + hard * 0.94 < sure
            predicted = _predict(kind, labels, correct, noise, kept)
            interval = row.interval(predicted, labels, resamples=300)
            file = f"predictions/{name.replace('/', '-')}-{list(recipes).index(model)}-{seed}.jsonl"
            if predictions:
                _write(folder / file, kind, labels, predicted, correct, noise)
            ends = [{"update": 50 * n, "value": interval.value * (1 - 0.5 * 0.85**n)} for n in range(1, 25)]
            runs.append(
                {
                    "seed": seed,
                    "value": interval.value,
                    "low": interval.low,
                    "high": interval.high,
                    "standard_error": interval.standard_error,
                    "scores": {"accuracy": float((predicted == labels).mean())} if title == "MRPC" else {},
                    "predictions": file if predictions else None,
                    "curve": ends,
                }
            )
        without = "student 3 x 384, fine-tuned" if "distilled" in role and "student 3 x 384, fine-tuned" in recipes else None
        cost = {"parameters": parameters, "bytes": parameters * 4}
        models.append({"name": model, "role": role, "runs": runs, "without_teacher": without, **cost, **more})
    return {
        "name": name,
        "title": title,
        "kind": kind,
        "metric": key,
        "constant": row.constant(labels),
        "examples": examples,
        "train_examples": trained,
        "small_and_noisy": noisy,
        "labels": LABELS.get(title, []),
        "source": "official development file",
        "models": models,
    }


def _labels(kind: str, examples: int, generator: np.random.Generator) -> Any:
    if kind == "classification":
        return (generator.random(examples) < 0.55).astype(int)
    if kind == "regression":
        return np.round(generator.random(examples) * 5, 1)
    if kind == "tagging":
        return [["B-PER", "I-PER", "O", "B-LOC"] if flip else ["O", "B-ORG", "O", "O"] for flip in generator.random(examples) < 0.5]
    return [[f"answer {number} in words"] if number % 3 else [] for number in range(examples)]


def _predict(kind: str, labels: Any, correct: np.ndarray, noise: np.random.Generator, kept: float) -> Any:
    if kind == "classification":
        return np.where(correct, labels, 1 - labels)
    if kind == "regression":
        return labels + noise.normal(0, 1.1 / kept, len(labels))
    if kind == "tagging":
        return [tags if ok else ["O", "O", "O", "B-LOC"] for tags, ok in zip(labels, correct, strict=True)]
    return [(answers or [""])[0] if ok else "in other words" for answers, ok in zip(labels, correct, strict=True)]


def _write(path: Path, kind: str, labels: Any, predicted: Any, correct: np.ndarray, noise: np.random.Generator) -> None:
    path.parent.mkdir(exist_ok=True)
    rows = []
    for number, (label, guess) in enumerate(zip(labels, predicted, strict=True)):
        text = HOSTILE[number % len(HOSTILE)] if number % 2 == 0 else f"example {number}: the film is better than its first half suggests"
        plain = [value.item() if isinstance(value, np.generic) else value for value in (label, guess)]
        row = {"text": text, "text_pair": "a second sentence" if number % 3 == 0 else None, "label": plain[0], "predicted": plain[1]}
        if kind == "classification":
            high = 0.5 + 0.5 * float(noise.random()) ** 0.5
            row["scores"] = [high, 1 - high] if plain[1] == 0 else [1 - high, high]
        rows.append(json.dumps(row, ensure_ascii=False))
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
