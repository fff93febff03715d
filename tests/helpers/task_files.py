"""Small tasks of every kind on invented words, whose labels can be read off the words, as files; and a tiny encoder for them."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

from school import SYLLABLES

GOOD, BAD = SYLLABLES[:4], SYLLABLES[4:8]


@dataclass(frozen=True)
class TaskFiles:
    """Train and dev of one task, and the settings that read them."""

    kind: str
    folder: Path
    settings: tuple[str, ...]


def make_task(folder: Path, kind: str, rows: int = 240, seed: int = 7) -> TaskFiles:
    """A task of this kind: 240 training rows and 80 development rows. A few updates of a tiny encoder learn it."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    name = "txt" if kind == "tagging" else "json" if kind == "question_answering" else "jsonl"
    for split, count in (("train", rows), ("dev", 80)):
        (folder / f"{split}.{name}").write_text(_WRITERS[kind](draw, count), encoding="utf-8")
    settings = [f"data.kind={kind}", f"data.train={folder}/train.{name}", f"data.dev={folder}/dev.{name}"]
    settings += {"tagging": ["data.format=conll"], "question_answering": ["data.format=squad"]}.get(kind, [])
    settings.append("data.max_length=64")
    if kind == "question_answering":
        settings += ["data.max_question=16", "data.window_overlap=16"]
    return TaskFiles(kind, folder, tuple(settings))


def _words(draw: random.Random, pool: list[str], count: int) -> list[str]:
    return [draw.choice(pool) if draw.random() < 0.6 else draw.choice(SYLLABLES[8:]) for _ in range(count)]


def _classification(draw: random.Random, count: int) -> str:
    rows = []
    for _ in range(count):
        good = draw.random() < 0.5
        rows.append({"text": " ".join(_words(draw, GOOD if good else BAD, draw.randint(4, 30))), "label": "good" if good else "bad"})
    return _lines(rows)


def _regression(draw: random.Random, count: int) -> str:
    rows = []
    for _ in range(count):
        words = _words(draw, GOOD + BAD, draw.randint(6, 20))
        rows.append({"text": " ".join(words), "label": (sum(w in GOOD for w in words) - sum(w in BAD for w in words)) / len(words)})
    return _lines(rows)


def _multi_label(draw: random.Random, count: int) -> str:
    rows = []
    for _ in range(count):
        words = _words(draw, draw.choice([GOOD, BAD, GOOD + BAD]), draw.randint(6, 20))
        rows.append({"text": " ".join(words), "label": [n for n, pool in (("good", GOOD), ("bad", BAD)) if set(pool) & set(words)]})
    return _lines(rows)


def _tagging(draw: random.Random, count: int) -> str:
    sentences = []
    for _ in range(count):
        words = _words(draw, GOOD + BAD, draw.randint(4, 15))
        sentences.append("".join(f"{w}\t{'B-GOOD' if w in GOOD else 'B-BAD' if w in BAD else 'O'}\n" for w in words))
    return "\n".join(sentences)


def _question_answering(draw: random.Random, count: int) -> str:
    paragraphs = []
    for number in range(count):
        words = [draw.choice(SYLLABLES[8:]) for _ in range(draw.randint(10, 60))]
        place, answer = draw.randrange(len(words)), draw.choice(GOOD)
        words[place] = answer
        start = sum(len(word) + 1 for word in words[:place])
        questions = [{"id": str(number), "question": "ba de fi", "answers": [{"text": answer, "answer_start": start}]}]
        paragraphs.append({"context": " ".join(words), "qas": questions})
    return json.dumps({"version": "1.1", "data": [{"title": "words", "paragraphs": paragraphs}]})


def _lines(rows: list[dict[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


_WRITERS = {
    "classification": _classification,
    "regression": _regression,
    "multi_label": _multi_label,
    "tagging": _tagging,
    "question_answering": _question_answering,
}
