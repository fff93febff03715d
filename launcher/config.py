"""The configuration of a run: one YAML, strict, composed of the settings that each room keeps beside the code they set.

1. `load` reads the file (safely, duplicate keys are errors), applies key=value overrides and validates.
2. What pydantic finds becomes one line a mistake, with the nearest name for a misspelt key.
3. What only the whole can know (a term that asks of a teacher there is not) is checked here; nothing is changed after loading.
"""

import difflib
import re
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from data_shards.stream import StreamSettings
from kd.schedules import OptimizerSettings
from kd.settings import CheckpointSettings, TrainSettings
from kd.student import StudentSettings
from kd.teacher import TeacherSettings
from kd.terms import Term
from launcher.errors import LaunchError
from launcher.reporters import ReportSettings

STRICT = ConfigDict(frozen=True, extra="forbid")


class RunSettings(BaseModel):
    """What the run is called and where everything about it is kept."""

    model_config = STRICT

    folder: str
    name: str | None = None
    """Shown in W&B and the model card; default: the folder's last part."""


class DataSettings(StreamSettings):
    """A shard folder or URL, and how it becomes rows."""

    shards: str

    @property
    def stream(self) -> StreamSettings:
        """The stream's own part."""
        return StreamSettings(**self.model_dump(exclude={"shards"}))


class EvaluateSettings(BaseModel):
    """Held-out scores during and after a run."""

    model_config = STRICT

    every_updates: Annotated[int, Field(gt=0)] | None = 500
    windows: Annotated[int, Field(gt=0)] | None = 1024
    """How many held-out windows during the run; null: all of them."""
    batch: Annotated[int, Field(gt=0)] = 32


class RunConfig(BaseModel):
    """Everything that decides a run."""

    model_config = STRICT

    run: RunSettings
    data: DataSettings
    student: StudentSettings = StudentSettings()
    teacher: TeacherSettings | None = None
    """null: no teacher; the objective's terms must then all be the student's own (a masked-language-model pretrainer)."""
    objective: Annotated[list[Term], Field(min_length=1)]
    train: TrainSettings
    optimizer: OptimizerSettings = OptimizerSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    report: ReportSettings = ReportSettings()

    @model_validator(mode="after")
    def _rooms_agree(self) -> "RunConfig":
        if not any(term.weight > 0 for term in self.objective):
            raise ValueError("objective: expected at least one term with a weight above 0, got none; raise one")
        asking = sorted(term.kind for term in self.objective if term.weight > 0 and term.asks)
        if asking and self.teacher is None:
            raise ValueError(f"teacher: expected a teacher for {', '.join(asking)}, got null; name one, or drop the term")
        if self.teacher is None and self.student.init == "teacher":
            raise ValueError("student.init: expected a model folder where there is no teacher, got teacher; name a folder or hub model")
        return self

    @property
    def name(self) -> str:
        """The run's name."""
        return self.run.name or Path(self.run.folder).name


def load(path: str, overrides: list[str] | None = None) -> RunConfig:
    """The run that a YAML file and key=value overrides describe. `path` may be the bare name of a packaged configuration (demo).

    Raises LaunchError, one line a mistake.
    """
    where, text = _read(path)
    values = _parse(where, text)
    for override in overrides or []:
        _apply(values, override)
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        lines = [_line(where, values, mistake) for mistake in error.errors()]
        raise LaunchError("\n".join(dict.fromkeys(lines))) from None


def dump(config: RunConfig) -> str:
    """The resolved configuration as YAML: every setting, defaults included, in the order of the models."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def parse(text: str, where: str) -> RunConfig:
    """The configuration that `dump` wrote."""
    try:
        return RunConfig.model_validate(_parse(where, text))
    except ValidationError as error:
        raise LaunchError(_line(where, {}, error.errors()[0])) from None


def differences(before: RunConfig, after: RunConfig, ignoring: tuple[str, ...] = ()) -> list[str]:
    """One line a setting that differs: `train.clip: 5.0 -> 1.0`. `ignoring`: dotted prefixes left out."""
    old, new = _flat(before.model_dump(mode="json")), _flat(after.model_dump(mode="json"))
    keys = [key for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key)]
    kept = [key for key in keys if not any(key == prefix or key.startswith(prefix + ".") for prefix in ignoring)]
    return [f"{key}: {old.get(key, 'absent')} -> {new.get(key, 'absent')}" for key in kept]


class _UniqueKeys(yaml.SafeLoader):
    """YAML's safe loader, without its silence about a key that stands twice."""


def _mapping(loader: _UniqueKeys, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"{key} stands twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
# YAML 1.1 reads 3e-4 as text; people mean a number.
_UniqueKeys.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789"))


def _read(path: str) -> tuple[str, str]:
    file = Path(path)
    packaged = resources.files("configs") / f"{path}.yaml" if "/" not in path and not file.suffix else None
    try:
        if not file.is_file() and packaged is not None and packaged.is_file():
            return f"configs/{path}.yaml", packaged.read_text(encoding="utf-8")
        return path, file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise LaunchError(f"{path}: expected a configuration file, got none there; check the path (or use one of configs/)") from None
    except (OSError, UnicodeDecodeError) as error:
        raise LaunchError(f"{path}: expected a readable YAML file, got {error}; check it") from None


def _parse(where: str, text: str) -> dict[str, Any]:
    try:
        values = yaml.load(text, _UniqueKeys)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark is not None else ""
        raise LaunchError(f"{where}:{line} expected YAML, got {getattr(error, 'problem', None) or error}; correct it") from None
    if not isinstance(values, dict):
        raise LaunchError(f"{where}: expected keys and values, got {'nothing' if values is None else type(values).__name__}; see configs/")
    return values


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise LaunchError(f"{override}: expected key=value, got no value; write it as train.updates=100")
    try:
        value = yaml.load(text, _UniqueKeys)
    except yaml.YAMLError as error:
        raise LaunchError(f"{override}: expected a YAML value, got {getattr(error, 'problem', error)}; quote it") from None
    *parents, last = key.split(".")
    at: Any = values
    for part in parents:
        inner = _step(at, part, key)
        if inner is None:
            inner = {}
            at[part] = inner
        at = inner
    if isinstance(at, list):
        _step(at, last, key)
        at[int(last)] = value
    elif isinstance(at, dict):
        at[last] = value
    else:
        raise LaunchError(f"{override}: expected {'.'.join(parents)} to have settings of its own, got {at}; correct the key")


def _step(at: Any, part: str, key: str) -> Any:
    if isinstance(at, list):
        if not part.isdigit() or int(part) >= len(at):
            raise LaunchError(f"{key}: expected a number from 0 to {len(at) - 1}, got {part}; correct the key")
        return at[int(part)]
    if not isinstance(at, dict):
        raise LaunchError(f"{key}: expected settings above {part}, got {at}; correct the key")
    return at.get(part)


def _line(where: str, values: dict[str, Any], mistake: Any) -> str:
    """One of pydantic's findings as `where: key: expected what, got what; what to do`."""
    location = [str(part) for part in mistake["loc"]]
    tags = {name for model in get_args(get_args(Term)[0]) for name in (model.model_fields["kind"].default,)}
    place = ".".join(part for i, part in enumerate(location) if not (i >= 2 and location[0] == "objective" and part in tags and i == 2))
    if mistake["type"] == "extra_forbidden":
        known = _fields_at(location)
        near = difflib.get_close_matches(location[-1], known, n=1)
        meant = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
        return f"{where}: {place}: unknown key; {meant}"
    if mistake["type"] == "missing":
        return f"{where}: {place}: expected a value, got none; add it"
    message = str(mistake.get("ctx", {}).get("error") or mistake["msg"])
    if mistake["type"] == "value_error":
        return f"{where}: {place + ': ' if place else ''}{message}"
    given = mistake["input"]
    shown = type(given).__name__ if isinstance(given, (dict, list)) else repr(given)
    return f"{where}: {place}: expected {message.removeprefix('Input should be ')}, got {shown}; correct it"


def _fields_at(location: list[str]) -> list[str]:
    """The keys that are known where an unknown one stands."""
    model: type[BaseModel] = RunConfig
    for part in location[:-1]:
        if model is RunConfig and part == "objective":
            kinds = {m.model_fields["kind"].default: m for m in get_args(get_args(Term)[0])}
            return list(kinds[location[2]].model_fields) if len(location) > 2 and location[2] in kinds else []
        field = model.model_fields.get(part)
        inner = [t for t in (field.annotation, *get_args(field.annotation)) if _is_model(t)] if field is not None else []
        if not inner:
            return []
        model = inner[0]
    return list(model.model_fields)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(values, dict):
        pairs = list(values.items())
    elif isinstance(values, list) and any(isinstance(v, dict) for v in values):
        pairs = [(str(i), v) for i, v in enumerate(values)]
    else:
        return {prefix: values}
    return {k: v for key, value in pairs for k, v in _flat(value, f"{prefix}.{key}" if prefix else str(key)).items()}
