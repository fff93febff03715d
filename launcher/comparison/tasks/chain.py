"""`stillhouse chain` on a task: teacher assistants, from a fine-tuned teacher to a student that is too small for it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console

from kd.models.encoder import Encoder
from launcher.comparison.chain_plan import Link, teacher_of
from launcher.comparison.tasks.results import FORM, table_of
from launcher.config.task_config import TaskRunConfig
from launcher.errors import LaunchError
from launcher.planning.shape_models import meta_model, meta_student
from launcher.tables import print_legend
from launcher.tasks.build import check_metric_packages
from launcher.tasks.plan import make_task_plan
from launcher.tasks.source import TaskSource
from stillhouse.errors import StillhouseError


def check(links: Sequence[Link], where: str, ranks: int) -> list[Link]:
    """The links with the number of their updates. The data are read once for links that share them.

    Raises LaunchError for a link whose student cannot be made from the one before, or cannot learn from it. No weight is loaded.
    """
    check_metric_packages()
    planned: list[Link] = []
    sources: list[tuple[Any, TaskSource]] = []
    teacher: Encoder | None = None
    for link in links:
        config = link.config
        assert isinstance(config, TaskRunConfig)
        key = config.data, config.evaluate.choose_on
        try:
            teacher = teacher or meta_model(teacher_of(config, where).model)
            source = next((source for data, source in sources if data == key), None)
            if source is None:
                sources.append((key, source := TaskSource.read(config)))
            if config.data.kind == "question_answering" and planned:  # windows need the tokenizer of a folder that is not there yet
                updates = planned[0].job.updates if config.train.updates is None else config.train.updates
            else:
                updates = make_task_plan(config, source, ranks, [teacher]).updates
            teacher = meta_student(config.student, teacher)
        except StillhouseError as error:
            raise LaunchError(f"{where}: links.{link.name}: {error}") from None
        planned.append(replace(link, job=replace(link.job, updates=updates)))
    return planned


def show(links: Sequence[Link], console: Console) -> list[dict[str, Any]]:
    """The scores on dev of the first teacher and of every link's student, as a table and as rows for chain.json."""
    reports = [json.loads((link.job.folder / "report.json").read_text(encoding="utf-8")) for link in links]
    key = reports[0]["task"]["metric"]
    first = reports[0]["teachers"][0]
    config = links[0].config
    rows = [{"name": "teacher", "model": teacher_of(config, links[0].name).model, **first}]
    for link, report in zip(links, reports, strict=True):
        sizes = {"parameters": report["parameters"], "bytes": report["bytes"]}
        rows.append({"name": link.name, "model": str(link.job.folder / "student"), **sizes, **report["dev"]})
    cells = []
    for row in rows:
        low, high = row["intervals"][key]
        kept = row[key] / first[key] if first[key] else float("nan")
        size = f"{row['parameters']:,}" if "parameters" in row else ""
        cells.append([row["name"], size, f"{row[key]:{FORM}}", f"{low:{FORM}}-{high:{FORM}}", f"{kept:.1%}"])
    console.print(table_of(cells, ("model", "parameters", key, "interval", "retained")))
    meanings = {"interval": f"95 %, by bootstrap over the {first['rows']:,} rows of dev", "retained": "share of the first teacher's score"}
    print_legend(console, meanings)
    return rows
