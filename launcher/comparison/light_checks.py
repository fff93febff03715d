"""Mistakes in a comparison or a chain that are found within a second: without torch, DeepSpeed and transformers."""

import argparse
from pathlib import Path

from kd.models.folder import check_model_folder
from launcher.comparison import chain_plan, settings
from launcher.comparison.tasks import plan as task_plan
from launcher.config.load import load_settings
from launcher.config.run_config import AnyRunConfig
from launcher.errors import LaunchError
from launcher.planning.light_checks import check_inputs
from stillhouse.errors import StillhouseError


def check_comparisons(arguments: argparse.Namespace) -> None:
    """Raise LaunchError, one line, for a comparison file, its folder, or a variant's settings that cannot be used."""
    files, words = settings.files_and_settings(arguments.words)
    for file in files:
        if task_plan.is_of_task(load_settings(settings.Comparison, file, settings.PACKAGED).base):
            _check_tasks(file, words, arguments)
            continue
        comparison = settings.load(file, arguments.budget, arguments.amount)
        base = settings.base_config(comparison, words, file)
        root = Path(arguments.folder) / Path(file).stem
        runs = settings.plan(comparison, file, root, arguments.budget, words)
        if arguments.budget == "tokens":  # with a budget of time, the updates are measured first
            settings.check_folder(root, base, runs)
        for planned in [] if arguments.report else runs[: len(comparison.variants)]:
            _check_inputs(f"{file}: variants.{planned.variant}", planned.config, arguments.ranks)


def _check_tasks(file: str, words: list[str], arguments: argparse.Namespace) -> None:
    comparison = task_plan.load_task_comparison(file, arguments.budget)
    runs = task_plan.plan_tasks(comparison, file, Path(arguments.folder) / Path(file).stem, words)
    task_plan.check_folders(runs)
    for planned in [] if arguments.report else runs[: len(comparison.variants)]:
        _check_inputs(f"{file}: variants.{planned.variant}", planned.config, arguments.ranks)


def check_chain(arguments: argparse.Namespace) -> None:
    """Raise LaunchError, one line, for a chain file or a link's settings that cannot be used."""
    file, words = chain_plan.file_and_settings(arguments.words)
    chain = load_settings(chain_plan.Chain, file, "chains")
    links = chain_plan.plan(chain, file, Path(arguments.folder) / Path(file).stem, words)
    _check_inputs(f"{file}: links.{links[0].name}", links[0].config, arguments.ranks)
    for link in links[1:]:  # their teachers are the students of earlier links
        if link.config.student.init != "teacher":
            check_model_folder(link.config.student.init)


def _check_inputs(where: str, config: AnyRunConfig, ranks: int) -> None:
    try:
        check_inputs(config, ranks)
    except StillhouseError as error:
        raise LaunchError(f"{where}: {error}") from None
