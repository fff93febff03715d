"""The records of a split: its files, the format of each, and the columns that its kind needs."""

from pathlib import Path
from typing import Any, BinaryIO

from data_shards.errors import DataError
from data_shards.sources.files import ending, find_files
from data_shards.sources.formats.common import InvalidText, decoded, lines
from data_shards.sources.settings import SourceSettings
from data_shards.sources.sources import opened
from data_shards.tasks.formats.conll import sentences
from data_shards.tasks.formats.squad import questions
from data_shards.tasks.formats.tables import Record, Rows, Wanted, csv_rows, hub_rows, json_rows, parquet_rows
from data_shards.tasks.presets import PRESETS
from data_shards.tasks.report import DataReport
from data_shards.tasks.settings import NEEDED, Columns, TaskDataSettings, is_hub

LABEL_ROLES = ("label", "tags", "answers")
FORMAT_OF_ENDING = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet"}
CONLL_ENDINGS = (".txt", ".conll", ".conll03", ".bio", ".iob", ".iob2")


def records(settings: TaskDataSettings, split: str, report: DataReport) -> Rows:
    """The rows of all files of a split, in order. Files that a pattern or folder leaves out are in the report."""
    for path in settings.paths(split):
        if is_hub(path):
            yield from hub_rows(path, _wanted(settings, split))
            continue
        files = find_files(SourceSettings(path=path))
        report.add(split, "files of a folder or pattern", "left out", [f"{name} ({reason})" for name, reason in files.left_out])
        place = Path(path).expanduser()
        for file, _ in files.files:
            in_folder = place.is_dir() or (split != "unlabelled" and file != str(place))
            form = format_of(settings, split, file, in_folder)
            own = _for_test(settings, file, form) if split == "test" else settings
            with opened(file, form) as (_, content):
                yield from _of_file(content, file, form, own, _wanted(own, split), split)


def _for_test(settings: TaskDataSettings, file: str, form: str) -> TaskDataSettings:
    """The settings for a test file: those of the preset's official test file if its first line names those columns."""
    names = PRESETS[settings.preset].test_columns if settings.preset else {}
    if not names or settings.header or form not in ("csv", "tsv"):
        return settings
    with opened(file, form) as (_, content):
        header = content.readline().decode("utf-8-sig", "replace").rstrip("\r\n").split("\t")
    if not set(names.values()) <= set(header):
        return settings
    return settings.model_copy(update={"header": True, "columns": Columns(**names)})


def format_of(settings: TaskDataSettings, split: str, path: str, in_folder: bool = False) -> str:
    """The format of a file: the one that was set, else that of its ending. in_folder: its folder or a pattern was named.

    Raises DataError for an ending that says nothing.
    """
    chosen = settings.unlabelled_format if split == "unlabelled" else settings.format
    if chosen != "auto":
        return chosen
    end = ending(path)
    if end == ".json":
        return "squad" if settings.kind == "question_answering" else "jsonl"
    if end == ".conllu":
        return "conllu"
    if end in CONLL_ENDINGS and settings.kind == "tagging":
        return "conll"
    if end in (".txt", ".text") and in_folder and settings.kind == "classification":
        return "folders"
    if end in (".txt", ".text") and split == "unlabelled":
        return "lines"
    if end not in FORMAT_OF_ENDING:
        if settings.format != "auto":
            return settings.format
        raise DataError(f"{path}: expected an ending such as .csv, .tsv, .jsonl or .parquet, got {end or 'none'}; set format")
    return FORMAT_OF_ENDING[end]


def _wanted(settings: TaskDataSettings, split: str) -> Wanted:
    """The columns to read of a split. Labels of test may be missing, and unlabelled has none."""
    columns = settings.columns
    roles = [role for role in NEEDED[settings.kind] if role != "label"]
    chosen: dict[str, Any] = {role: getattr(columns, role) for role in roles}
    if settings.kind in ("classification", "multi_label", "regression"):
        labels = columns.label if isinstance(columns.label, list) else None
        chosen |= {f"label:{index}": column for index, column in enumerate(labels)} if labels else {"label": columns.label}
        if columns.text_pair is not None:
            chosen["text_pair"] = columns.text_pair
    if columns.id is not None:
        chosen["id"] = columns.id
    if settings.split_by is not None and split == "train":
        chosen["split_by"] = settings.split_by
    label_roles = {role for role in chosen if role.partition(":")[0] in LABEL_ROLES}
    if split == "unlabelled":
        chosen = {role: column for role, column in chosen.items() if role not in label_roles}
    return Wanted(chosen, frozenset(label_roles) if split == "test" else frozenset())


def _of_file(file: BinaryIO, path: str, form: str, settings: TaskDataSettings, wanted: Wanted, split: str) -> Rows:
    """The rows of one open file."""
    if form in ("csv", "tsv"):
        return csv_rows(file, path, settings.model_copy(update={"format": form}), wanted)
    if form == "jsonl":
        return json_rows(file, path, wanted)
    if form == "parquet":
        return parquet_rows(file, path, wanted)
    if form == "lines":
        if split != "unlabelled" or settings.kind == "question_answering" or "text_pair" in wanted.columns:
            raise DataError(f"{path}: expected rows with the columns of {settings.kind}, got lines of text; set format")
        return _line_rows(file, path)
    if form == "folders":
        if settings.kind != "classification" or "text_pair" in wanted.columns:
            raise DataError(f"{path}: expected rows with the columns of {settings.kind}, got files of text in folders; set format")
        return _whole_file(file, path, wanted)
    if form in ("conll", "conllu"):
        if settings.kind != "tagging":
            raise DataError(f"{path}: expected kind tagging for a CoNLL file, got {settings.kind}; set kind or format")
        return _conll_rows(file, path, settings, split, universal=form == "conllu")
    if settings.kind != "question_answering":
        raise DataError(f"{path}: expected kind question_answering for a SQuAD file, got {settings.kind}; set kind or format")
    return (one if isinstance(one, DataError) else Record(one, one["place"]) for one in questions(file, path))


def _conll_rows(file: BinaryIO, path: str, settings: TaskDataSettings, split: str, universal: bool) -> Rows:
    for sentence in sentences(file, path, settings.columns, split != "unlabelled", settings.comment, universal):
        if isinstance(sentence, DataError):
            yield sentence
        else:
            words, tags, place = sentence
            yield Record({"words": words, "tags": tags if split != "unlabelled" else None}, place)


def _line_rows(file: BinaryIO, path: str) -> Rows:
    """Each line of a text file as an unlabelled text."""
    for line_number, offset, line in lines(file, path):
        text = decoded(line, path, offset)
        if isinstance(text, InvalidText):
            yield DataError(f"{text.where}: expected UTF-8, got {text.reason}; repair the file, or set on_bad_row to drop")
        else:
            yield Record({"text": text.rstrip("\r\n"), "words": text.split()}, f"{path}:{line_number}")


def _whole_file(file: BinaryIO, path: str, wanted: Wanted) -> Rows:
    """A file that is one text, with its folder's name as label."""
    text = decoded(file.read(), path, 0)
    if isinstance(text, InvalidText):
        yield DataError(f"{text.where}: expected UTF-8, got {text.reason}; repair the file, or set on_bad_row to drop")
    else:
        values = {"text": text.removeprefix("\ufeff").strip(), "label": Path(path).parent.name, "text_pair": None}
        yield Record({role: value for role, value in values.items() if role in wanted.columns}, path)
