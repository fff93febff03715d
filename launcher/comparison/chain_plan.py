"""A chain as settings: a base configuration, links, and the run of each link. Imports no torch, and starts nothing."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from kd.teacher.settings import TeacherSettings
from launcher.comparison.jobs import Job, updates_in
from launcher.comparison.settings import Words, folder_name, refuse_decided, resolved
from launcher.comparison.tasks.plan import is_of_task, task_config_of
from launcher.config.run_config import AnyRunConfig, RunConfig, Text
from launcher.errors import LaunchError

DECIDED = ("run.folder", "run.name", "data.shards", "teacher.model")


class Chain(BaseModel):
    """A chain of runs. Every link has the base's settings, then `settings`, then its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: Text
    """A configuration file, or the name of one in configs/. Its teacher is the first link's."""
    settings: Words = []
    """key=value words for all links."""
    links: Annotated[dict[Text, Words], Field(min_length=1)]
    """Name -> key=value words, from the largest student to the smallest."""


@dataclass(frozen=True)
class Link:
    """One run of a chain."""

    name: str
    config: AnyRunConfig
    job: Job


def file_and_settings(words: Sequence[str]) -> tuple[str, list[str]]:
    """(the chain file, the key=value words) of a command line. Raises LaunchError unless there is one file."""
    files = [word for word in words if "=" not in word]
    if len(files) != 1:
        raise LaunchError(f"stillhouse chain: expected one chain file, got {len(files)}; name one, as configs/chains/assistants.yaml")
    return files[0], [word for word in words if word != files[0]]


def plan(chain: Chain, where: str, root: Path, words: list[str]) -> list[Link]:
    """The chain's runs, first to last. Raises LaunchError for settings that make no valid run or that the chain decides."""
    of_task = is_of_task(chain.base)
    links: list[Link] = []
    names: dict[str, str] = {}
    for name, own in chain.links.items():
        link_key = f"{where}: links.{name}"
        other = names.setdefault(folder_name(name), name)
        if other != name:
            raise LaunchError(f"{where}: links: expected names that differ in letters or digits, got {other} and {name}; rename one")
        refuse_decided(link_key, own, DECIDED)
        folder = root / folder_name(name)
        teaching = [f"teacher.model={json.dumps(str(links[-1].job.folder / 'student'))}"] if links else []
        fixed = [f"run.folder={json.dumps(str(folder))}", f"run.name={json.dumps(f'{root.name}: {name}')}", *teaching]
        all_words = [*chain.settings, *words, *own, *fixed]
        config = task_config_of(link_key, chain.base, all_words) if of_task else resolved(link_key, chain.base, all_words)
        teacher_of(config, link_key)
        updates = updates_in(config) if isinstance(config, RunConfig) else config.train.updates or 0  # epochs of a task: its plan knows
        links.append(Link(name, config, Job(name, folder, chain.base, tuple(all_words), updates)))
    return links


def teacher_of(config: AnyRunConfig, where: str) -> TeacherSettings:
    """The one teacher of a link. Raises LaunchError for none, or several."""
    if config.teacher is None or isinstance(config.teacher, list):
        got = "teacher: null" if config.teacher is None else f"{len(config.teacher)} teachers"
        raise LaunchError(f"{where}: expected a teacher, got {got}; name one in the base")
    return config.teacher
