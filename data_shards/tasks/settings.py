"""Settings of a task's data: files, columns, labels and lengths. Light: it imports no numpy and no tokenizer."""

import difflib
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from data_shards.tasks.presets import PRESETS
from stillhouse.settings import FREE

Kind = Literal["classification", "multi_label", "regression", "tagging", "question_answering"]
FileFormat = Literal["auto", "csv", "tsv", "jsonl", "parquet", "conll", "conllu", "squad", "lines", "folders"]
SPLITS = ("train", "dev", "test", "unlabelled")
HUB = re.compile(r"hub:(?P<name>[^:]+):(?P<split>.+)")
"""A name of the `datasets` library: hub:ORG/NAME[/CONFIG]:SPLIT, or hub:FOLDER:SPLIT."""
SHOWN_NAMES = 30
NEEDED = {
    "classification": ("text", "label"),
    "multi_label": ("text",),
    "regression": ("text", "label"),
    "tagging": ("words", "tags"),
    "question_answering": ("question", "context", "answers"),
}
"""Columns that a kind needs."""
Column = str | Annotated[int, Field(ge=0)]
Files = str | list[str]


class Columns(BaseModel):
    """Columns by name, or by number from 0 where the file has no header."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: Column = "text"
    text_pair: Column | None = None
    label: Column | list[Column] = "label"
    """multi_label: one column whose value is a list or a text with separators, or a list of columns that hold 0 or 1."""
    words: Column = "tokens"
    tags: Column = "ner_tags"
    id: Column | None = None
    question: Column = "question"
    context: Column = "context"
    answers: Column = "answers"

    @model_validator(mode="after")
    def _text_is_no_label(self) -> "Columns":
        if self.label in (self.text, self.text_pair):
            raise ValueError(f"label: expected another column than the text's, got {self.label}; correct it")
        return self


class TaskDataSettings(BaseModel):
    """The data of one task. A preset gives settings that were not set here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: str | None = None
    """A published task, such as glue/sst2: one of PRESETS."""
    folder: Annotated[str | None, FREE] = None
    """The folder with the preset's official files; null: the hub."""
    kind: Kind
    train: Annotated[Files | None, FREE] = None
    """A file, a glob, a list of them, or hub:ORG/NAME[/CONFIG]:SPLIT. The same for dev, test and unlabelled."""
    dev: Annotated[Files | None, FREE] = None
    test: Annotated[Files | None, FREE] = None
    unlabelled: Annotated[Files | None, FREE] = None
    format: FileFormat = "auto"
    """The format of the files.

    auto: by the file's ending.
    conllu: Universal Dependencies; columns 1 (FORM) and 3 (UPOS) unless words and tags are numbers.
    folders: each file is a text, and its folder's name is the label.
    """
    header: bool = True
    """csv and tsv: whether the first line names the columns."""
    separator: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """csv and tsv: between the fields; null: a tab for tsv, else a comma."""
    quoting: Literal["auto", "double", "backslash", "none"] = "auto"
    """csv and tsv: as for sources of text. none: quotes are text; auto: none for tsv, else double."""
    columns: Columns = Columns()
    unlabelled_format: FileFormat = "auto"
    """Format of unlabelled files; auto: by the file's ending, .txt is lines; `format` where the ending says nothing."""
    unlabelled_columns: Columns | None = None
    """Columns of unlabelled files; null: `columns`."""
    label_separator: Annotated[str, Field(min_length=1)] = ","
    """multi_label: between the labels of one field."""
    labels: list[str] | None = None
    """Label names in order; null: the names in the training data, sorted."""
    label_names: dict[str, str] = {}
    """Value in the file -> label name."""
    dev_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the training rows that become the development set where `dev` is not set."""
    split_by: Column | None = None
    """dev_fraction: rows with the same value in this column stay in one split."""
    split_seed: int = 0
    comment: Annotated[str, Field(min_length=1)] | None = None
    """conll: lines that begin with this are left out, such as # in some files."""
    tag_scheme: Literal["auto", "iob1", "raw"] = "auto"
    """tagging: iob1 is converted to BIO; auto: detected and reported; raw: tags stay as they are."""
    max_length: Annotated[int, Field(ge=8)] = 128
    """Tokens of a row, special tokens included. A longer text is cut; a longer context gets several windows."""
    window_overlap: Annotated[int, Field(ge=0)] = 128
    """question_answering: tokens of the context that two neighbouring windows share."""
    max_question: Annotated[int, Field(ge=1)] = 64
    """question_answering: tokens after which a question is cut."""
    drop_overlap: bool = False
    """Drop training rows whose text is also in dev or test."""
    drop_duplicates: bool = False
    """Drop training rows whose text is in an earlier row."""
    on_bad_row: Literal["error", "drop"] = "error"
    """A row with missing fields, an unknown label or a misplaced answer: stop, or drop and count it."""
    max_rows: Annotated[int, Field(ge=1)] | None = None
    """A sample of each split, drawn with split_seed, for quick runs."""

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, values: Any) -> Any:
        """The values with those of the preset where they were not set. Question answering has longer rows than the other kinds."""
        if isinstance(values, dict) and values.get("kind") == "question_answering":
            values = {"max_length": 384, **values}
        if not isinstance(values, dict) or values.get("preset") is None:
            return values
        name = str(values["preset"])
        if name not in PRESETS:
            raise ValueError(f"preset {name}: expected one of {', '.join(PRESETS)}, got none of them{did_you_mean(name, PRESETS)}")
        folder = values.get("folder")
        given = {key: value for key, value in values.items() if value is not None or key not in SPLITS}
        merged = {**PRESETS[name].settings(None if folder is None else str(folder)), **given}
        own = ("train", "dev", "test") if folder is None else ("train", "dev")  # a test file belongs to the official folder
        if any(given.get(split) for split in own):  # a user's own files are not mixed with the preset's
            merged = {key: value for key, value in merged.items() if key not in SPLITS or key in given}
        return merged

    @field_validator("separator", mode="before")
    @classmethod
    def _tab(cls, value: object) -> object:
        return "\t" if value in ("\\t", "tab") else value

    @field_validator("label_names", mode="before")
    @classmethod
    def _text_keys(cls, value: object) -> object:
        """Keys such as 0 in YAML are numbers; files hold text."""
        return {label_text(key): label_text(name) for key, name in value.items()} if isinstance(value, dict) else value

    @field_validator("labels", mode="before")
    @classmethod
    def _text(cls, labels: object) -> object:
        """Labels such as 0 in YAML are numbers; yes and no are booleans there."""
        if not isinstance(labels, list):
            return labels
        if any(isinstance(label, bool) for label in labels):
            raise ValueError("expected text, got true or false; put yes, no, true and false into quotes")
        return [label_text(label) if isinstance(label, int | float) else label for label in labels]

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: list[str] | None) -> list[str] | None:
        twice = sorted({label for label in labels or [] if (labels or []).count(label) > 1})
        if twice:
            raise ValueError(f"expected each label once, got {', '.join(twice)} twice; remove one")
        return labels

    @model_validator(mode="after")
    def _fits(self) -> "TaskDataSettings":
        if self.train is None and self.dev is None and self.test is None and self.unlabelled is None:
            raise ValueError("expected train, dev, test or unlabelled, got none of them; name a file")
        for split in SPLITS:
            for one in self.paths(split):
                if one.startswith("hub:") and HUB.fullmatch(one) is None:
                    raise ValueError(f"{split}: expected hub:ORG/NAME[/CONFIG]:SPLIT, got {one}; add the split")
        for first, second in itertools.combinations(SPLITS, 2):
            both = sorted(set(self.paths(first)) & set(self.paths(second)))
            if both:
                raise ValueError(f"{first} and {second}: expected different files, got {both[0]} in both; remove it from one of them")
        if self.labels is not None:
            unknown = sorted({name for name in self.label_names.values() if name not in self.labels})
            if unknown:
                raise ValueError(f"label_names: expected names among labels, got {', '.join(unknown)}; add them to labels")
        if self.kind == "regression" and (self.labels or self.label_names):
            raise ValueError("labels: expected none for regression, got names; remove labels and label_names")
        if self.kind == "question_answering" and self.max_question + self.window_overlap + 8 > self.max_length:
            raise ValueError(
                f"max_length: expected more than max_question + window_overlap + 8 = {self.max_question + self.window_overlap + 8}, "
                f"got {self.max_length}; raise max_length or lower the others"
            )
        return self

    def paths(self, split: str) -> list[str]:
        """The files, globs and hub names of a split."""
        value = getattr(self, split)
        return [] if value is None else [value] if isinstance(value, str) else list(value)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the preset's official metrics, the headline first; empty without a preset."""
        return PRESETS[self.preset].metrics if self.preset else ()


def label_text(value: object) -> str:
    """A label's value as text, the same from csv, JSON, parquet and YAML: 1, 1.0 and "1" are "1"; true is "true"."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def did_you_mean(name: object, names: Any) -> str:
    """A suggestion to append to an error, or nothing."""
    close = difflib.get_close_matches(str(name), [str(one) for one in names], 1, 0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def listed(names: Sequence[str]) -> str:
    """The names with commas between them, the first SHOWN_NAMES of them."""
    shown = ", ".join(f"{name:.60}" for name in names[:SHOWN_NAMES]) or "none"
    return shown if len(names) <= SHOWN_NAMES else f"{shown} and {len(names) - SHOWN_NAMES} more"


def is_hub(path: str) -> bool:
    """True if a path names a data set of the `datasets` library."""
    return path.startswith("hub:")


def hub_parts(path: str) -> tuple[str, str | None, str]:
    """(name or folder, configuration, split) of a hub path. ORG/NAME/CONFIG has three parts; a folder begins with /, . or ~."""
    match = HUB.fullmatch(path)
    assert match, path
    name, split = match["name"], match["split"]
    if name.startswith(("/", ".", "~")) or Path(name).exists() or name.count("/") < 2:
        return name, None, split
    name, _, config = name.rpartition("/")
    return name, config, split
