"""The configuration of a run: one strict YAML file of the settings that each package defines with its code.

1. `load` reads the file (safely, bounded, duplicate keys are errors), applies key=value overrides and validates, types included.
2. What pydantic finds becomes one line a mistake (launcher/config/validation_errors.py).
3. What only the whole can know is checked by the model (launcher/config/run_config.py); nothing is changed after loading.
4. `dump_config` and `public_values` return it without the credentials that a URL may hold.
"""

import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from launcher.config import validation_errors
from launcher.config.renamed import rename, renamed_key
from launcher.config.run_config import AnyRunConfig, RunConfig
from launcher.config.task_config import TaskRunConfig, is_task, with_objective
from launcher.config.yaml_file import PACKAGED, dump_yaml, parse_yaml, read_yaml, yaml_value
from launcher.errors import LaunchError
from launcher.redaction import redacted

MAX_VALUES, MAX_DEPTH = 10_000, 20  # of what it says, aliases unfolded
LENGTHS = ("train.updates", "train.tokens", "train.epochs")
NUMBER = re.compile(r"\.\d+(?=\.|$)")
Settings = TypeVar("Settings", bound=BaseModel)


def load_config(
    path: str, overrides: list[str] | None = None, scale: str | None = None, note: Callable[[str], None] | None = None
) -> RunConfig:
    """As load_run, for what only a run on text can do. Raises LaunchError for a task."""
    config = load_run(path, overrides, scale, note)
    if not isinstance(config, RunConfig):
        raise LaunchError(f"{path}: expected a run on shards (data.shards), got a task ({config.data.kind}); see stillhouse task --help")
    return config


def load_run(
    path: str, overrides: list[str] | None = None, scale: str | None = None, note: Callable[[str], None] | None = None
) -> AnyRunConfig:
    """The run that a YAML file and key=value overrides describe. `path` may be the bare name of a packaged configuration (demo).

    scale: the name of a file in configs/scales. Its settings replace those of the file. The file's own `scales` section comes last.
    note: gets a line where a length of the command line replaces another of the file.
    Raises LaunchError, one line a mistake.
    """
    where, text = read_yaml(path)
    values = _scaled(parse_yaml(where, text), scale, where)
    notes, given = rename(values), []
    for override in overrides or []:
        key, equals, value = override.partition("=")
        if renamed_key(key) != key:
            notes.append(f"{key}: is now {renamed_key(key)}; it is read, please rename it")
        given.append(_apply(values, f"{renamed_key(key)}{equals}{value}"))
        notes += rename(values)
    if os.environ.get("RANK", "0") == "0":
        for line in dict.fromkeys(notes):
            print(f"stillhouse: {line}", file=sys.stderr)
    replaced = _replace_length(values, given)
    if replaced and note is not None:
        note(replaced)

    def source(place: str, message: str) -> str:
        """The command line for a key that it gave, and for a check of a section that names such a key; else the file."""
        words = set(re.findall(r"[\w.]+", message))

        def is_named(key: str) -> bool:
            return key.rpartition(".")[2] in words or any(f"{word}.".startswith(f"{key}.") for word in words)

        own = any(f"{place}.".startswith(f"{key}.") or (key.startswith(place) and is_named(key)) for key in given)
        return "command line" if own else where

    return _run(values, source)


def parse_config(text: str, where: str) -> AnyRunConfig:
    """The configuration that `dump` wrote."""
    return config_of(parse_yaml(where, text), where)


def config_of(values: Any, where: str) -> AnyRunConfig:
    """The configuration that `public_values` returned."""
    return _run(values, lambda place, message: where)


def _run(values: Any, where: Callable[[str, str], str]) -> AnyRunConfig:
    if is_task(values):
        return _validated(with_objective(values), where, TaskRunConfig)
    return _validated(values, where, RunConfig)


def public_values(config: AnyRunConfig) -> dict[str, Any]:
    """Every setting, defaults included, as plain values; credentials inside URLs are ***."""
    return dict(redacted(config.model_dump(mode="json")))


def dump_config(config: AnyRunConfig) -> str:
    """`public_values` as YAML, in the order of the models."""
    return dump_yaml(public_values(config))


def differences(before: AnyRunConfig, after: AnyRunConfig, ignoring: tuple[str, ...] = ()) -> list[str]:
    """One line a setting that differs: `train.clip: 5.0 -> 1.0`. `ignoring`: dotted prefixes left out, places in lists not counted."""
    old, new = flat_values(public_values(before)), flat_values(public_values(after))
    keys = [key for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key)]
    kept = [key for key in keys if not any(f"{NUMBER.sub('', key)}.".startswith(f"{prefix}.") for prefix in ignoring)]
    return [f"{key}: {_shown(old, key)} -> {_shown(new, key)}" for key in kept]


def load_settings(model: type[Settings], path: str, folder: str, overrides: Sequence[str] = ()) -> Settings:
    """Settings of another kind, as strictly: a YAML file, or the bare name of a packaged one in configs/`folder`.

    overrides: key=value words. Raises LaunchError, one line a mistake.
    """
    where, text = read_yaml(path, folder)
    values = parse_yaml(where, text)
    given = [_apply(values, override) for override in overrides]

    def source(place: str, message: str) -> str:
        return "command line" if any(f"{place}.".startswith(f"{key}.") for key in given) else where

    return _validated(values, source, model)


def _scaled(values: dict[str, Any], scale: str | None, where: str) -> dict[str, Any]:
    """A file's values at a scale; at its own where that is None."""
    own = values.pop("scales", None) or {}
    if not isinstance(own, dict) or not all(isinstance(over, dict) for over in own.values()):
        raise LaunchError(f"{where}: scales: expected settings for each scale by its name, got {_shown({'': own}, '')}; see configs/")
    if scale is None:
        return values
    known = sorted(file.stem for file in (PACKAGED / "scales").glob("*.yaml"))
    if scale not in known:
        raise LaunchError(f"--scale: expected {' or '.join(known)}, got {scale}; correct it")
    path = PACKAGED / "scales" / f"{scale}.yaml"
    return _over(_over(values, parse_yaml(f"configs/scales/{path.name}", path.read_text(encoding="utf-8"))), own.get(scale, {}))


def _over(below: Any, above: Any) -> Any:
    """Settings with others laid over them, key by key; lists and plain values are replaced."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {key: _over(below.get(key), value) for key, value in above.items()}


def _apply(values: dict[str, Any], override: str) -> str:
    """Set one value, and make the settings around it where there are none; the outermost key that is the command line's doing."""
    key, equals, text = override.partition("=")
    *parents, last = key.split(".")
    if not equals or "" in (*parents, last):
        raise LaunchError(f"{override}: expected key=value, got {'no value' if not equals else 'no key'}; write it as train.updates=100")
    try:
        value = yaml_value(text)
    except ValueError as error:
        raise LaunchError(f"{override}: expected a YAML value, got {str(error).removeprefix('line 1: ')}; quote it") from None
    at: Any = values
    made = None
    for number, part in enumerate(parents, start=1):
        place = _index(at, part, key)
        inner = at.get(place) if isinstance(at, dict) else at[place]
        if inner is None:
            made = made or ".".join(parents[:number])
        at[place] = {} if inner is None else copy(inner)  # an alias may name the same settings elsewhere, where they stay
        at = at[place]
    at[_index(at, last, key)] = value
    return made or key


def _replace_length(values: dict[str, Any], given: list[str]) -> str:
    """Drop the file's length of the run where the command line gives one in another unit; the line that says so, or ""."""
    train = values.get("train")
    named = [key.removeprefix("train.") for key in given if key in LENGTHS]
    if not isinstance(train, dict) or len(named) != 1 or train.get(named[0]) is None:
        return ""
    dropped = [name for name in ("updates", "tokens", "epochs") if name != named[0] and train.get(name) is not None]
    text = " and ".join(f"train.{name}: {train[name]}" for name in dropped)
    for name in dropped:
        train[name] = None
    length = train[named[0]]
    shown = int(length) if isinstance(length, float) and length.is_integer() else length
    return f"train.{named[0]}={shown} of the command line replaces {text} of the file" if dropped else ""


def _index(at: Any, part: str, key: str) -> str | int:
    """`part` as what `at` is indexed by."""
    if isinstance(at, dict):
        return part
    if not isinstance(at, list):
        raise LaunchError(f"{key}: expected settings that hold {part}, got {at}; correct the key")
    if not part.isdecimal() or int(part) >= len(at):
        raise LaunchError(f"{key}: expected a number from 0 to {len(at) - 1}, got {part}; correct the key")
    return int(part)


def _validated(values: dict[str, Any], where: Callable[[str, str], str], model: type[Settings]) -> Settings:
    """Validated as JSON, where pydantic can be strict about types and still take a list for a tuple."""
    if issubclass(model, AnyRunConfig) and isinstance(values, dict):
        values = dict(values)
        rename(values)
    plain = _plain(values, "", where, iter(range(MAX_VALUES)))
    try:
        return model.model_validate_json(json.dumps(plain), strict=True)
    except ValidationError as error:
        raise LaunchError("\n".join(validation_errors.lines(error, plain, model, where))) from None


def _plain(value: Any, place: str, where: Callable[[str, str], str], budget: Iterator[int]) -> Any:
    """A YAML value as JSON: whole numbers without a point (1e9 tokens), nothing infinite, ~/ as the user's folder."""
    if next(budget, None) is None or place.count(".") > MAX_DEPTH:
        raise LaunchError(
            f"{where('', '')}: expected a configuration, got more than {MAX_VALUES:,} values or {MAX_DEPTH} levels; correct it"
        )
    if isinstance(value, dict):
        return {str(key): _plain(inner, f"{place}.{key}".strip("."), where, budget) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner, f"{place}.{number}", where, budget) for number, inner in enumerate(value)]
    problem = None
    if isinstance(value, float):
        problem = None if math.isfinite(value) else f"a finite number, got {value}"
        value = int(value) if value.is_integer() else value
    elif isinstance(value, str):
        value = os.path.expanduser(value) if value.startswith("~/") else value  # a shell does not after =, nor in a file
        problem = None if "\0" not in value and not re.search("[\ud800-\udfff]", value) else f"text, got {value!r}"
    elif value is not None and not isinstance(value, int):
        problem = f"text, a number, true, false or null, got {type(value).__name__}"
    if problem is not None:
        raise LaunchError(f"{where(place, '')}: {place}: expected {problem}; correct it")
    return value


def _shown(flat: dict[str, Any], key: str) -> str:
    value = flat.get(key, "absent")
    return value if isinstance(value, str) else json.dumps(value)


def flat_values(values: Any, prefix: str = "") -> dict[str, Any]:
    """Settings by their dotted names; a list of settings by number."""
    if isinstance(values, dict):
        pairs = list(values.items())
    elif isinstance(values, list) and any(isinstance(v, dict) for v in values):
        pairs = [(str(i), v) for i, v in enumerate(values)]
    else:
        return {prefix: values}
    return {k: v for key, value in pairs for k, v in flat_values(value, f"{prefix}.{key}" if prefix else str(key)).items()}
