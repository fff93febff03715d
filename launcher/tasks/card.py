"""README.md of a task's student: the task, its labels, its scores with their interval, and five lines that use it."""

from typing import Any

from huggingface_hub import ModelCardData

from kd.models.sizes import model_sizes
from kd.tasks.model import TaskEncoder
from launcher.config.task_config import TaskRunConfig
from launcher.training.card import machine

TAGS = {
    "classification": "text-classification",
    "multi_label": "text-classification",
    "regression": "text-classification",
    "tagging": "token-classification",
    "question_answering": "question-answering",
}


def task_card(student: TaskEncoder, config: TaskRunConfig, report: dict[str, Any], teachers: list[str]) -> str:
    """The text of the card. report: what report.json says. teachers: public names."""
    kind = config.data.kind
    card = ModelCardData(library_name="transformers", pipeline_tag=TAGS[kind], tags=["distillation"] if teachers else None)
    sizes = model_sizes(student)
    lines = [
        "---",
        card.to_yaml(),
        "---",
        "",
        f"# {config.name}",
        "",
        f"A {student.family.name} encoder of {student.layers} layers, {'distilled' if teachers else 'fine-tuned'} for "
        f"{kind.replace('_', ' ')} with Stillhouse.",
        "",
        "```python",
        "from transformers import pipeline",
        "",
        f'model = pipeline("{TAGS[kind]}", model="path/to/this/folder")',
        _call(config),
        "```",
        "",
        "| fact | value |",
        "| --- | --- |",
        f"| parameters | {sizes.parameters:,} |",
        f"| labels | {', '.join(report['task']['labels']) or 'none'} |",
        f"| longest text | {config.data.max_length} tokens |",
        f"| teacher | {', '.join(teachers) or 'none'} |",
        f"| updates | {report['updates']:,} |",
        f"| training rows | {report['rows']['train']:,} |",
        *(f"| {key} | {value} |" for key, value in machine(report["ranks"]).items()),
        "",
        "## Scores on the development set",
        "",
        f"{report['dev']['rows']:,} rows. The interval is a 95 % bootstrap interval. The weights were chosen on {report['chosen_on']}.",
        "",
        "| metric | student | interval | teacher | constant prediction |",
        "| --- | --- | --- | --- | --- |",
        *_scores(report),
        "",
        "## Limits",
        "",
        "The scores hold for text like the development set. Longer texts are cut. Nothing is known about other languages and subjects.",
        "",
    ]
    return "\n".join(lines)


def _call(config: TaskRunConfig) -> str:
    if config.data.kind == "question_answering":
        return 'print(model(question="Who wrote it?", context="Melville wrote it."))'
    if config.data.columns.text_pair is not None:
        return 'print(model({"text": "The first text.", "text_pair": "The second text."}))'
    return 'print(model("A text."))'


def _scores(report: dict[str, Any]) -> list[str]:
    dev = report["dev"]
    teacher = report["teachers"][0] if report["teachers"] else {}
    rows = []
    for key, (low, high) in dev["intervals"].items():
        theirs = f"{teacher[key]:.3f}" if key in teacher else "none"
        rows.append(f"| {key} | {dev[key]:.3f} | {low:.3f} to {high:.3f} | {theirs} | {dev['constant'][key]:.3f} |")
    return rows
