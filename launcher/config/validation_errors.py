"""The mistakes that pydantic reports in a configuration, one line each: `where: key: expected what, got what; what to do`."""

import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from kd.terms.schedules import Ramp, Schedulable, Steps
from launcher.config.other_names import SETTINGS
from launcher.config.yaml_file import yaml_value

SHOWN = 60  # characters of a wrong value
QUOTE = "put it in quotes"
WORDS = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "model_type": "settings of its own",
    "model_attributes_type": "settings of its own",
    "dict_type": "settings of its own",
}


def lines(error: ValidationError, values: dict[str, Any], root: type[BaseModel], where: Callable[[str, str], str]) -> list[str]:
    """One line a mistake.

    values: what was validated; root: the model it should have been; where: (key, message) -> the file, or the command line.
    """
    found: dict[str, dict[str, Any]] = {}
    for mistake in error.errors(include_url=False):
        place = _place(mistake, values)
        if place in found:  # another member of a union that refused the same value
            found[place]["expected"] += f" or {_expected(mistake)}"
        else:
            found[place] = {**mistake, "expected": _expected(mistake)}
    told = [(place, mistake) for place, mistake in found.items() if not _explained(place, mistake, found)]
    texts = [(place, _line(place, mistake, root)) for place, mistake in told]
    return [f"{(source := where(place, text))}: {_for_a_shell(text) if source == 'command line' else text}" for place, text in texts]


def _for_a_shell(text: str) -> str:
    """The line of a value on the command line: a shell takes one pair of quotes away."""
    return text.replace(QUOTE, f"{QUOTE}, as '\"…\"' for a shell")


def _explained(place: str, mistake: dict[str, Any], found: Iterable[str]) -> bool:
    """True if a mistake about a list only repeats one about its items: no other member of a union fits, or items are missing."""
    shallow = isinstance(mistake["input"], list | dict) and mistake["type"] in ("literal_error", "string_type", "too_short")
    return shallow and any(inner.startswith(f"{place}.") for inner in found)


def _line(place: str, mistake: dict[str, Any], root: type[BaseModel]) -> str:
    kind, context = mistake["type"], mistake.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{place}: unknown key; {_meant(place, mistake['loc'], root)}"
    if kind == "missing":
        return f"{place}: expected a value, got none; add it"
    if kind == "value_error":
        message = str(context["error"])
        named = re.match(r"[a-z_.]+: ", message)  # the message says which of the settings
        return message if not place else f"{place}.{message}" if named else f"{place}: {message}"
    if kind == "union_tag_not_found":
        return f"{place}: expected a value, got none; add it"
    if kind == "union_tag_invalid":
        tags = re.findall(r"'([^']*)'", context["expected_tags"])
        given = mistake["input"].get(context["discriminator"].strip("'")) if isinstance(mistake["input"], dict) else None
        near = difflib.get_close_matches(context["tag"], tags, n=1) if isinstance(given, str) else []
        advice = f"did you mean {near[0]}?" if near else "correct it"
        got = context["tag"] if isinstance(given, str) else _short(given)
        return f"{place}: expected {' or '.join(tags)}, got {got}; {advice}"
    given = mistake["input"]
    if kind in ("too_short", "too_long"):
        got = str(len(given))
    else:
        got = "a list" if isinstance(given, list) else "settings" if isinstance(given, dict) else _short(given)
    return f"{place}: expected {mistake['expected']}, got {got}; {_quotes(kind, given) or 'correct it'}"


def _quotes(kind: str, given: Any) -> str:
    """Advice where only quotes are wrong: a number in the place of a text, or a text that is a number. Else ""."""
    if kind == "string_type" and isinstance(given, int | float):
        return QUOTE
    if kind in ("int_type", "float_type") and isinstance(given, str):
        with suppress(ValueError):
            return "remove the quotes" if isinstance(yaml_value(given), int | float) else ""
    return ""


def _expected(mistake: Any) -> str:
    """`Input should be greater than 0` -> `greater than 0`."""
    text = re.sub(r"^(Input|Value|String|List|Tuple|Dictionary) should (be|have) ", "", mistake["msg"]).partition(" after validation")[0]
    return WORDS.get(mistake["type"], text)


def _short(value: Any) -> str:
    text = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _place(mistake: Any, values: Any) -> str:
    """The dotted key of a mistake; what pydantic adds for the members of a union is left out."""
    parts, at = [], values
    for number, part in enumerate(mistake["loc"]):
        if (isinstance(at, dict) and part in at) or (isinstance(at, list) and isinstance(part, int) and part < len(at)):
            at = at[part]
        elif mistake["type"] != "missing" or number + 1 < len(mistake["loc"]):
            continue
        parts.append(str(part))
    return ".".join([*parts, mistake["ctx"]["discriminator"].strip("'")] if mistake["type"].startswith("union_tag") else parts)


def _meant(place: str, location: tuple[int | str, ...], root: type[BaseModel]) -> str:
    """A hint for an unknown key: the same word in another section, a similar word here, or a similar word in another section."""
    key = str(location[-1])
    here = _known(location, root)
    if key in SETTINGS and (SETTINGS[key] != place):
        return f"did you mean {SETTINGS[key]}?"
    everywhere = {path.rpartition(".")[2]: path for path in _paths(root) if path != place}
    near = [everywhere[key]] if key in everywhere else difflib.get_close_matches(key, here, n=1)
    near = near or [everywhere[word] for word in difflib.get_close_matches(key, everywhere, n=1)]
    if near:
        return f"did you mean {near[0]}?"
    return f"known here: {', '.join(here)}"


def _known(location: tuple[int | str, ...], root: type[BaseModel]) -> list[str]:
    """The keys that are known where an unknown one stands."""
    models = [root]
    for part in location[:-1]:
        fields = [model.model_fields[part] for model in models if isinstance(part, str) and part in model.model_fields]
        if fields:
            models = [inner for field in fields for inner in _models(field.annotation) or _schedules(field)]
        elif isinstance(part, str):  # the tag of a union's member
            tagged = [model for model in models if any(part in get_args(field.annotation) for field in model.model_fields.values())]
            models = tagged or models
    return list(dict.fromkeys(field.alias or name for model in models for name, field in model.model_fields.items()))


def _paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted key of a model, lists left out."""
    for name, field in model.model_fields.items():
        yield prefix + name
        if not any(inner is list for inner in (field.annotation, getattr(field.annotation, "__origin__", None))):
            for inner in _models(field.annotation):
                yield from _paths(inner, f"{prefix}{name}.")


def _schedules(field: FieldInfo) -> list[type[BaseModel]]:
    """The models of a number's schedules, where it may have one."""
    return [Ramp, Steps] if any(isinstance(mark, Schedulable) for mark in field.metadata) else []


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models inside an annotation: of `list[Annotated[A | B, …]]` A and B."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]
