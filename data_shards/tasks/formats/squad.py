"""SQuAD files, versions 1.1 and 2.0: articles of paragraphs with questions and answers."""

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from data_shards.errors import DataError
from data_shards.sources.formats.common import InvalidText, decoded
from data_shards.tasks.settings import did_you_mean
from stillhouse.errors import one_line


def questions(file: BinaryIO, path: str) -> Iterator[dict[str, Any] | DataError]:
    """Each question as a row: id, question, context, answers, place; a bad one is yielded as its error.

    answers: a list of {text, answer_start}; None where the file gives none. An impossible question has an empty list.
    """
    content = decoded(file.read(), path, 0)
    if isinstance(content, InvalidText):
        raise DataError(f"{content.where}: expected UTF-8, got {content.reason}; repair the file")
    try:
        articles = json.loads(content.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected SQuAD's JSON, got {one_line(error)}; repair the file") from None
    if not isinstance(articles, dict) or not isinstance(articles.get("data"), list):
        raise DataError(f"{path}: expected SQuAD's JSON with a list `data`, got {_described(articles)}; set format to jsonl or another")
    for number, article in enumerate(articles["data"]):
        for index, paragraph in enumerate(_list(article, "paragraphs", f"{path}: article {number}")):
            where = f"{path}: article {number}, paragraph {index}"
            for entry in _list(paragraph, "qas", where):
                yield _row(entry, paragraph.get("context"), where)


def _row(entry: Any, context: Any, where: str) -> dict[str, Any] | DataError:
    if not isinstance(entry, dict) or not isinstance(context, str) or not isinstance(entry.get("question"), str):
        return DataError(f"{where}: expected a context and a question, got {_described(entry)}; repair the file")
    identity = str(entry.get("id", ""))
    place = f"{where}, question {identity}"
    answers = [] if entry.get("is_impossible") else entry.get("answers")
    return {"id": identity or place, "question": entry["question"], "context": context, "answers": answers, "place": place}


def _list(value: Any, key: str, where: str) -> list[Any]:
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, list):
        names = value if isinstance(value, dict) else []
        raise DataError(f"{where}: expected a list {key}, got {_described(value)}{did_you_mean(key, names)}; repair the file")
    return found


def _described(value: Any) -> str:
    return f"fields {', '.join(map(str, list(value)[:8])) or 'none'}" if isinstance(value, dict) else type(value).__name__
