"""Settings of a source of text."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from data_shards.sources.formats import BY_KIND

KINDS = ("auto", *BY_KIND, "dataset")


class SourceSettings(BaseModel):
    """One place that text is read from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    """A file, a folder, a glob, a URL; for kind dataset a hub name or a local folder; for webdataset also a brace pattern."""
    kind: str = "auto"
    """auto: by the file's ending; of a compressed file (.gz, .bz2, .xz, .zst) the ending before. Else one of KINDS."""
    column: str = "text"
    """The field that holds the text; plain text has none."""
    per: Literal["file", "line", "paragraph"] = "line"
    """The unit of plain text that is a document. Empty lines separate paragraphs."""
    name: str | None = None
    """For kind dataset: its configuration."""
    split: str = "train"
    streaming: bool = True
    invalid_utf8: Literal["error", "replace", "skip"] = "error"
    # left out of dumps where not set, so that shards built before these settings existed keep their manifests
    separator: Annotated[str | None, Field(min_length=1, max_length=1, exclude_if=lambda value: value is None)] = None
    """Between the fields of csv; null: a tab for .tsv, a comma for other files."""
    quoting: Annotated[Literal["auto", "double", "backslash", "none"], Field(exclude_if=lambda value: value == "auto")] = "auto"
    """The form of a quote inside a quoted csv field. none: quotes are text. auto: none for .tsv, double for other files."""

    member: Annotated[str, Field(exclude_if=lambda value: value == "txt")] = "txt"
    """For webdataset: the member of a sample that holds the text, or a field of a JSON member, such as json:text."""

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in KINDS:
            raise ValueError(f"expected one of {', '.join(KINDS)}")
        return kind

    @field_validator("separator", mode="before")
    @classmethod
    def _tab(cls, value: object) -> object:
        return "\t" if value in ("\\t", "tab") else value
