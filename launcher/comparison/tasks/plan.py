"""The runs of a comparison or a chain on a task, as settings. Imports no torch, and starts nothing."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.comparison.settings import PACKAGED, Comparison, folder_name, refuse_decided
from launcher.config.free_to_change import FREE_TO_CHANGE
from launcher.config.load import differences, load_run, load_settings, parse_config, public_values
from launcher.config.task_config import TaskRunConfig, is_task
from launcher.config.yaml_file import parse_yaml, read_yaml
from launcher.errors import LaunchError

DECIDED = ("run.folder", "run.name", "train.seed")
BUDGETS = ("tokens", "seconds", "windows")


@dataclass(frozen=True)
class PlannedTask:
    """One variant with one seed, as a run on a task."""

    variant: str
    seed: int
    config: TaskRunConfig
    folder: Path
    words: tuple[str, ...]


def is_of_task(base: str) -> bool:
    """True if a configuration file, or a packaged one, describes a run on a task."""
    return is_task(parse_yaml(*read_yaml(base)))


def load_task_comparison(file: str, budget: str) -> Comparison:
    """A comparison of runs on a task. Raises LaunchError for a budget: each run has the length that its settings say."""
    comparison = load_settings(Comparison, file, PACKAGED)
    for key in BUDGETS:
        if getattr(comparison, key) is not None:
            raise LaunchError(
                f"{file}: {key}: expected none for a task, got {getattr(comparison, key)}; set train.epochs or train.updates instead"
            )
    if budget == "time":
        raise LaunchError(f"{file}: expected --budget tokens for a task, got time; set train.epochs or train.updates in the file instead")
    return comparison


def task_config_of(where: str, base: str, words: Sequence[str]) -> TaskRunConfig:
    """A base with key=value words. Raises LaunchError in one line that begins with `where`."""
    try:
        config = load_run(base, list(words))
    except LaunchError as error:
        first = str(error).splitlines()[0].removeprefix("command line: ")
        raise LaunchError(f"{where}: {first}") from None
    if not isinstance(config, TaskRunConfig):
        raise LaunchError(f"{where}: expected a run on a task, got one on shards; leave data.shards out")
    return config


def plan_tasks(comparison: Comparison, file: str, root: Path, words: Sequence[str]) -> list[PlannedTask]:
    """Every run of a comparison, seed by seed, so that an early end leaves whole seeds.

    words: of the command line, for all runs. Raises LaunchError for words that make no valid run, and for two variants that are the same.
    """
    refuse_decided(f"{file}: settings", [*comparison.settings, *words], DECIDED)
    runs: list[PlannedTask] = []
    seen: dict[str, str] = {}
    for seed in comparison.seeds:
        for name, own in comparison.variants.items():
            key = f"{file}: variants.{name}"
            refuse_decided(key, own, DECIDED)
            folder = root / folder_name(name) / f"seed-{seed}"
            fixed = [f"run.folder={json.dumps(str(folder))}", f"run.name={json.dumps(f'{root.name}: {name}, seed {seed}')}"]
            all_words = (*comparison.settings, *words, *own, *fixed, f"train.seed={seed}")
            config = task_config_of(key, comparison.base, all_words)
            same = json.dumps(public_values(config) | {"run": None, "report": None}, sort_keys=True)
            if seen.setdefault(same, name) != name:
                raise LaunchError(f"{file}: variants: expected different runs, got the same one for {seen[same]} and {name}; drop one")
            runs.append(PlannedTask(name, seed, config, folder, all_words))
    return runs


def check_folders(runs: Sequence[PlannedTask]) -> None:
    """Raise LaunchError where the folder of a run began as another run."""
    for run in runs:
        path = run.folder / "config.yaml"
        if not path.exists():
            continue
        before = parse_config(path.read_text(encoding="utf-8"), str(path))
        changed = differences(before, run.config, ignoring=FREE_TO_CHANGE)
        if changed:
            raise LaunchError(
                f"{run.folder}: expected the run that variant {run.variant} is now, got another ({'; '.join(changed[:3])}); "
                "rename the variant, remove that folder, or choose another --folder"
            )
