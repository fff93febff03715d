"""`stillhouse chain FILE`: runs of which each teaches the next, down to a student too small for the first teacher.

Teacher assistants: Mirzadeh et al. 2020, arXiv:1902.03393. Each link is an ordinary run in a folder of its own; its teacher is the student
that the link before it exported. A chain that was stopped continues in the same link. At the end all students are scored against
the first teacher.
"""

import argparse
import json
from pathlib import Path

from rich.console import Console

from data_shards.corpus import Corpus
from launcher.comparison.chain_plan import Chain, Link, file_and_settings, plan, teacher_of
from launcher.comparison.jobs import Job, last_words, run_jobs
from launcher.comparison.tasks import chain as task_chain
from launcher.config.load import load_settings
from launcher.config.run_config import RunConfig
from launcher.config.task_config import TaskRunConfig
from launcher.errors import LaunchError
from launcher.evaluation import evaluate
from launcher.planning.checks import check_fits
from launcher.planning.phases import objectives_of, plan_phases
from launcher.planning.shape_models import meta_model, meta_student
from launcher.process.signals import Exit
from launcher.reporting.console import PipeSafeConsole
from launcher.run_folder.folder import owned
from stillhouse.errors import StillhouseError
from stillhouse.files import write_atomically


def run(arguments: argparse.Namespace) -> int:
    """The chain, or what of it is not done yet."""
    file, words = file_and_settings(arguments.words)
    chain = load_settings(Chain, file, "chains")
    root = Path(arguments.folder) / Path(file).stem
    links = plan(chain, file, root, words)
    if isinstance(links[0].config, TaskRunConfig):
        links = task_chain.check(links, file, arguments.ranks)
    else:
        check(links, file)
    console = PipeSafeConsole()
    if arguments.dry_run:
        for link in links:
            teacher = teacher_of(link.config, link.name).model
            state = "done" if link.job.done else f"{link.job.updates_done} of {link.job.updates} updates done"
            console.print(f"{link.name}: {state}, teacher {teacher}, in {link.job.folder}", soft_wrap=True, highlight=False)
        return Exit.DONE
    root.mkdir(parents=True, exist_ok=True)
    with owned(root):
        return _go(links, root, arguments.ranks, console)


def check(links: list[Link], where: str) -> None:
    """Raise LaunchError for a link whose student cannot be made from the one before, or cannot learn from it with its terms and phases.
    Shapes are checked; no weight is loaded.
    """
    first = links[0].config
    assert isinstance(first, RunConfig)
    corpus = Corpus.open(first.data.shards, first.data.cache_folder)
    teacher = meta_model(teacher_of(first, where).model)
    check_fits("teacher", teacher, corpus.manifest, first.data.stream)
    for link in links:
        try:
            student = meta_student(link.config.student, teacher)
            objectives = objectives_of(link.config, link.job.updates, student, [teacher])
            plan_phases(link.config.phases_of(link.job.updates), objectives, student, tokens_per_update=0)
            teacher = student
        except StillhouseError as error:
            raise LaunchError(f"{where}: links.{link.name}: {error}") from None


def _go(links: list[Link], root: Path, ranks: int, console: Console) -> int:
    def finished(job: Job, code: int) -> None:
        said = "done" if code == Exit.DONE else f"failed with code {code}: {last_words(job)}"
        console.print(f"{job.name}: {said}", soft_wrap=True, highlight=False)

    for link in links:
        code = run_jobs([link.job], ranks, 1, console, finished)
        if code != Exit.DONE:
            return code
    report = root / "chain.json"
    config = links[0].config
    if isinstance(config, TaskRunConfig):
        rows = task_chain.show(links, console)
        write_atomically(report, json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
        console.print(f"report: {report}", soft_wrap=True, highlight=False)
        return Exit.DONE
    assert isinstance(config, RunConfig)
    teacher = teacher_of(config, links[0].name).model
    students = {str(link.job.folder / "student"): link.name for link in links}
    rows = evaluate.score(list(students), config.data.shards, teacher, config.data.stream, batch=config.evaluate.batch)
    names = {teacher: "teacher"} | students
    evaluate.show(rows, console, names)
    write_atomically(report, json.dumps([row | {"name": names[row["model"]]} for row in rows], indent=1) + "\n")
    console.print(f"report: {report}", soft_wrap=True, highlight=False)
    return Exit.DONE
