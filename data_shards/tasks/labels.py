"""Label names: those of the data in order, and their numbers in a model. Names decide, positions never do."""

import re
from collections.abc import Mapping, Sequence

from data_shards.errors import DataError
from data_shards.tasks.examples import Examples
from data_shards.tasks.report import DataReport
from data_shards.tasks.settings import listed

PLACEHOLDER = re.compile(r"LABEL_\d+")
"""The name that transformers gives a label whose name is not known."""


def label_names(splits: Sequence[Examples], given: list[str] | None, report: DataReport) -> list[str] | None:
    """The label names of a task in order; None for regression and question answering.

    given: the settings' names. Without them, the names in the labelled splits, sorted, numbers by value; O is the first tag.
    """
    labelled = [examples for examples in splits if examples.labels is not None]
    if not labelled and given is None:
        return None
    if labelled and labelled[0].kind in ("regression", "question_answering"):
        return None
    if given is not None:
        return list(given)
    seen = {name for examples in labelled for name in names_in(examples)}
    numbers = all(re.fullmatch(r"-?\d+", name) for name in seen)
    names = sorted(seen, key=lambda name: (name != "O", int(name) if numbers else 0, name))
    report.note(f"labels: the order is that of the sorted names, {listed(names)}; set labels to choose another")
    return names


def names_in(examples: Examples) -> list[str]:
    """Every label of a split, one entry for each time it occurs."""
    labels = examples.labels or []
    return list(labels) if examples.kind == "classification" else [name for row in labels for name in row]


def resolve_labels(
    data: Sequence[str], model: Mapping[int, str], given: Mapping[str, str] | None = None, where: str = "model", setting: str = "label_map"
) -> list[int]:
    """The model's number of each label of the data, in the data's order.

    model: its id2label. given: data's name -> model's name, for names that differ. setting: its name in errors.
    Names match in any case.
    Raises DataError, with both lists, for names that differ, for placeholders such as LABEL_0, and for another number of labels.
    """
    numbers = {int(number): str(name) for number, name in model.items()}
    mapping = dict(given or {})
    lists = f"the data has {listed(data)}; {where} has {listed([numbers[number] for number in sorted(numbers)])}"
    advice = f"set {setting}: {{name in the data: name in the model, ...}}"
    unknown = sorted(set(mapping) - set(data)) + sorted(set(mapping.values()) - set(numbers.values()))
    if unknown:
        raise DataError(f"{setting}: expected names of the data and of {where}, got {', '.join(unknown)} ({lists}); correct it")
    if len(numbers) != len(data):
        raise DataError(
            f"{where}: expected {len(data)} labels, got {len(numbers)} ({lists}); choose a model of this task, or correct labels"
        )
    placeholders = [name for name in numbers.values() if PLACEHOLDER.fullmatch(name)]
    if placeholders and len(mapping) < len(data) and list(data) != [numbers[number] for number in sorted(numbers)]:
        raise DataError(f"{where}: expected label names, got {listed(placeholders)}, whose order is not known ({lists}); {advice}")
    exact = {name: number for number, name in numbers.items()}
    folded: dict[str, list[int]] = {}
    for number, name in numbers.items():
        folded.setdefault(_folded(name), []).append(number)
    resolved = []
    for name in data:
        wanted = mapping.get(name, name)
        candidates = [exact[wanted]] if wanted in exact else folded.get(_folded(wanted), [])
        if len(candidates) != 1:
            raise DataError(f"{where}: expected a label {wanted}, got none of that name ({lists}); {advice}")
        resolved.append(candidates[0])
    if len(set(resolved)) != len(resolved):
        raise DataError(f"{where}: expected a label of its own for each label of the data, got one twice ({lists}); {advice}")
    return resolved


def _folded(name: str) -> str:
    """A name without case, and with _ for spaces and hyphens; the prefix of a tag stays."""
    return re.sub(r"[\s_-]+", "_", name.strip()).casefold()
