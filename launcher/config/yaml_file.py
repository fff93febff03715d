"""YAML files as strict, bounded plain values: safe loading, duplicate keys are errors, YAML 1.2 words and numbers. Knows no setting."""

import re
from pathlib import Path
from typing import Any

import yaml

from launcher.errors import LaunchError
from stillhouse.files import ROOT

PACKAGED = ROOT / "configs"
MAX_BYTES = 1 << 20  # of a file
WHOLE = re.compile(r"^[-+]?(?:0|[1-9][0-9_]*|0b[01]+|0x[0-9a-fA-F]+)$")  # not 010 and 1:30, which YAML 1.1 reads as 8 and 90
NUMBER = re.compile(  # 0.5, .5e-3, 3e-4, 1_000.5
    r"^(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))"
    r"|\.(?:nan|NaN|NAN))$"
)


def read_yaml(path: str, folder: str = ".") -> tuple[str, str]:
    """(the name that error lines use, the text) of a YAML file, or of a packaged one by its bare name.

    Raises LaunchError for a file that is missing, too large, unreadable or not UTF-8.
    """
    packaged = PACKAGED / folder / f"{path}.yaml"
    names = sorted(file.stem for file in (PACKAGED / folder).glob("*.yaml"))
    if folder in (".", "compare"):
        names += sorted(f"tasks/{file.stem}" for file in (PACKAGED / folder / "tasks").glob("*.yaml"))
    inside = path in names and not Path(path).is_file()
    try:
        with open(packaged if inside else path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise LaunchError(f"{path}: expected a configuration of at most {MAX_BYTES:,} bytes, got more; check the path")
        return (f"configs/{Path(folder) / path}.yaml" if inside else path), data.decode("utf-8")
    except FileNotFoundError:
        known = ", ".join(names)
        raise LaunchError(f"{path or '--config'}: expected a configuration file, got none there; check the path, or use {known}") from None
    except UnicodeDecodeError as error:
        raise LaunchError(f"{path}: expected UTF-8, got byte {data[error.start]:#04x} at offset {error.start}; convert it") from None
    except (OSError, ValueError) as error:
        raise LaunchError(f"{path}: expected a readable YAML file, got {getattr(error, 'strerror', None) or error}; check it") from None


def yaml_value(text: str) -> Any:
    """The value of a YAML text. Raises ValueError, in one line, for anything else."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ValueError(f"{line}{problem}".splitlines()[0]) from None
    except RecursionError:
        raise ValueError("brackets nested too deeply") from None


def parse_yaml(where: str, text: str) -> dict[str, Any]:
    """The keys and values of a YAML text. Raises LaunchError, which begins with `where`, for anything else."""
    try:
        values = yaml_value(text)
    except ValueError as error:
        raise LaunchError(f"{where}: expected YAML, got {error}; correct it") from None
    if not isinstance(values, dict):
        raise LaunchError(f"{where}: expected keys and values, got {'nothing' if values is None else type(values).__name__}; see configs/")
    return values


def dump_yaml(values: dict[str, Any]) -> str:
    """Plain values as YAML text, in their own order."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=140)


class _Loader(yaml.SafeLoader):
    """YAML's safe loader. A key that stands twice is an error; off and 010 are words and 3e-4 is a number, as in YAML 1.2."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (the class's own copy, as PyYAML wants it)
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in ("bool", "timestamp", "int", "float")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key that is not a word", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", WHOLE, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", NUMBER, list("-+.0123456789"))


class _Dumper(yaml.SafeDumper):
    """YAML's safe dumper. It quotes a text that _Loader would take for a number (a run named 1e5), and writes a repeated list twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", NUMBER, list("-+.0123456789"))
