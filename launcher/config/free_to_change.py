"""The settings that may change when a run is continued, read from the marks on their fields (stillhouse/settings.py)."""

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

from launcher.config.run_config import RunConfig
from launcher.config.task_config import TaskRunConfig
from stillhouse.settings import FreeToChange


def marked_settings(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of the marked fields of a settings class and of the classes in its fields. Numbers in lists are left out."""
    for name, field in model.model_fields.items():
        if any(isinstance(mark, FreeToChange) for mark in field.metadata):
            yield prefix + name
        else:
            for inner in _settings_classes(field.annotation):
                yield from marked_settings(inner, f"{prefix}{name}.")


def _settings_classes(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _settings_classes(part)


FREE_TO_CHANGE = tuple(dict.fromkeys([*marked_settings(RunConfig), *marked_settings(TaskRunConfig)]))
"""Dotted names, as `train.micro_batch`; `report` stands for every setting below it."""
