"""`stillhouse task score MODEL… --config …`: scores of Hugging Face models and exported ones on a task's development or test set."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from rich import box
from rich.table import Table

from data_shards.tasks.labels import resolve_labels
from kd.distributed import process_group
from kd.kernels import fp32_products
from kd.models.sizes import model_sizes
from kd.tasks.loading import load_task
from kd.tasks.model import TaskEncoder
from launcher.config.task_config import TaskRunConfig
from launcher.deployment.conversion.quality import BATCH, SERVED, RuntimeTask
from launcher.deployment.folder import is_exported, read_exported
from launcher.deployment.prediction.served import serve
from launcher.errors import LaunchError
from launcher.process.standard_streams import say
from launcher.reporting.console import PipeSafeConsole
from launcher.tasks.build import check_metric_packages, make_scorer
from launcher.tasks.data import task_config
from launcher.tasks.finish import prediction_lines
from launcher.tasks.remarks import constant_remark
from launcher.tasks.scores import check_finite, outputs_of
from launcher.tasks.source import TaskSource
from launcher.tasks.teachers import check_length
from launcher.text import size
from stillhouse.files import write_atomically


def run(arguments: argparse.Namespace) -> int:
    """Score each model and print one table."""
    check_metric_packages()
    words = [word for word in arguments.models if "=" in word and not Path(word).exists()]  # settings, as `task train` takes them
    arguments.models = [word for word in arguments.models if word not in words]
    if not arguments.models:
        raise LaunchError(f"task score: expected a model folder or hub name, got settings alone: {words[0]}; name a model")
    config = task_config(arguments.config, [*arguments.settings, *words])
    source = TaskSource.read(config)
    if arguments.split not in source.splits:
        raise LaunchError(f"data.{arguments.split}: expected files of the split to score, got none; name them, or choose another --split")
    if arguments.predictions:
        make_folder(arguments.predictions)
    fp32_products.choose()  # as a run does
    rows = [score(config, source, model, arguments) for model in arguments.models]
    _show(rows, rows[0]["metrics"])
    if arguments.json:
        write_atomically(Path(arguments.json), json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    return 0


def make_folder(path: str) -> None:
    """The folder of the predictions, before anything is scored. Raises LaunchError where it cannot be made."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LaunchError(f"--predictions {path}: expected a folder, got {(error.strerror or str(error)).lower()}; name another") from None


def score(config: TaskRunConfig, source: TaskSource, model: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The scores of one model, with intervals."""

    def order(where: str, names: list[str]) -> list[int]:
        return resolve_labels(source.labels, dict(enumerate(names)), dict(arguments.label_map or []), where, "--label-map DATA=MODEL")

    if is_exported(model):
        encoder, facts, batch = *_exported(model, config, order), BATCH
    else:
        encoder = load_task(model, config.data.kind, order).to(process_group.device())
        check_length(model, encoder.max_positions, config)
        facts, batch = {"parameters": model_sizes(encoder).parameters}, config.evaluate.batch
    scorer = make_scorer(config, source, arguments.split, model)
    outputs = outputs_of(encoder, scorer.task, batch)
    check_finite(model, outputs)
    scores = scorer.scores(outputs, config.evaluate.resamples)
    if arguments.predictions:
        name = f"{model.strip('/.').replace('/', '-')}.jsonl" if len(arguments.models) > 1 else "predictions.jsonl"
        write_atomically(Path(arguments.predictions) / name, "".join(f"{line}\n" for line in prediction_lines(outputs, scorer)))
    if remark := constant_remark(scores, model, arguments.split):
        say(remark)
    keys = [metric.key for metric in scorer.metrics]
    return {"model": model, "split": arguments.split, "metrics": keys, **facts, **scores.row}


def _exported(model: str, config: TaskRunConfig, order: Callable[[str, list[str]], list[int]]) -> tuple[TaskEncoder, dict[str, Any]]:
    """(an exported folder with the interface of a task model, its form, bytes and batches). Raises LaunchError for another kind."""
    served, record, kind = serve(model), read_exported(model).record, config.data.kind
    check_length(model, served.max_tokens, config)
    if served.purpose != kind:
        raise LaunchError(f"{model}: expected a model for {kind}, got one for {served.purpose}; choose the model's own task")
    labels = order(model, served.labels) if served.labels else None
    outputs = len(served.labels) or (2 if kind == "question_answering" else 1)
    facts = {"form": f"{record['model_format']} {record['precision']}", "bytes": record["bytes"], "served": SERVED.format(BATCH)}
    return cast(TaskEncoder, RuntimeTask(served.session, outputs, labels)), facts


def _show(rows: list[dict[str, Any]], metrics: list[str]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("model", overflow="fold")
    table.add_column("parameters" if all("parameters" in row for row in rows) else "parameters, or file", justify="right", no_wrap=True)
    for key in metrics:
        table.add_column(key, justify="right", no_wrap=True)
        table.add_column("interval", justify="right", no_wrap=True)
    for row in rows:
        cells = []
        for key in metrics:
            low, high = row["intervals"][key]
            cells += [f"{row[key]:.3f}", f"{low:.3f}-{high:.3f}"]
        table.add_row(row["model"], f"{row['parameters']:,}" if "parameters" in row else f"{size(row['bytes'])} {row['form']}", *cells)
    table.add_row("constant prediction", "", *(cell for key in metrics for cell in (f"{rows[0]['constant'][key]:.3f}", "")))
    console = PipeSafeConsole()
    console.print(table)
    for row in rows:
        if "served" in row:
            console.print(f"{row['model']}: {row['served']}", soft_wrap=True, markup=False, highlight=False)
    console.print(f"{rows[0]['rows']:,} rows of {rows[0]['split']}. interval: 95 %, by bootstrap over the rows.", highlight=False)
