"""A few held-out sentences with one masked token each, and the first guesses of teacher and student.

The sentences are the same at every evaluation. Every rank passes them through the teacher, once a start, because a split teacher needs all
ranks. Rank 0 passes them through the student.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from data_shards.corpus import Corpus
from data_shards.stream.stream import Stream
from kd.batch import Batch
from kd.distributed import process_group
from kd.models.compiled_layers import plain_layers
from kd.models.encoder import Encoder
from kd.teacher.teacher import Teacher
from launcher.process.standard_streams import say
from launcher.training.batches import heldout_batches
from stillhouse.errors import one_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

GUESSES, CONTEXT, TEXT_LIMIT = 5, 24, 300
"""Guesses of each model, tokens on each side of the masked one, and the most characters of a sentence."""
OTHER_MASK = "_"
Guess = tuple[str, float]
"""(token, probability)."""


@dataclass(frozen=True)
class Sample:
    """One masked token. text: around it; it is [MASK], and other masked tokens are _. teacher: empty where it does not compute."""

    identity: str
    text: str
    label: str
    student: list[Guess]
    teacher: list[Guess]

    def line(self, update: int) -> dict[str, Any]:
        """A line of samples.jsonl."""
        values = {"id": self.identity, "text": self.text, "label": self.label, "prediction": self.student[0][0]}
        return values | {"student": self.student, "teacher": self.teacher, "update": update}


Samples = Callable[[Encoder], list[Sample]]
"""student -> samples, on rank 0; [] on others. Collective."""


def samples_of(corpus: Corpus, heldout: Stream, teacher: Teacher | None, count: int, vocabulary: int) -> Samples:
    """Samples of the first held-out windows, one a window, `count` of them. teacher: None where it does not compute these windows."""
    known: dict[str, Any] = {}

    def make(student: Encoder) -> list[Sample]:
        if "batch" not in known:  # the teacher's guesses stay the same
            known["batch"] = batch = next(heldout_batches(heldout, count, count)).to(process_group.device())
            known["places"] = places = asked_positions(batch, corpus.manifest.mask_id)
            known["teacher"] = None if teacher is None else _teacher_logits(teacher, batch, places, vocabulary)
        batch, places = known["batch"], known["places"]
        if process_group.rank() != 0 or not len(places[0]):
            return []
        with torch.no_grad(), student.evaluating():
            states = student.transform(student(batch).last_hidden[places])
            logits = F.linear(states, student.decoder_weight[:vocabulary], student.decoder_bias[:vocabulary])
        try:
            return _samples(batch, places, logits, known["teacher"], Words(corpus.tokenizer, corpus.manifest.mask_id))
        except Exception as error:  # tokenizers raise too many kinds of errors to name
            say(f"samples.jsonl: expected the corpus's tokenizer to decode, got {one_line(error)}; the run goes on")
            return []

    return make


def _samples(batch: Batch, places: tuple[Tensor, Tensor], logits: Tensor, taught: Tensor | None, words: "Words") -> list[Sample]:
    """The samples at some positions. logits, taught: [N, V] of student and teacher."""
    mine = words.guesses(logits)
    theirs = words.guesses(taught) if taught is not None else [[] for _ in mine]
    rows, columns, labels = places[0].tolist(), places[1].tolist(), batch.labels[places].tolist()
    return [
        Sample(f"window {int(batch.windows[row])}, token {column}", words.around(batch, row, column), words.token(label), *guessed)
        for row, column, label, *guessed in zip(rows, columns, labels, mine, theirs, strict=True)
    ]


def asked_positions(batch: Batch, mask: int) -> tuple[Tensor, Tensor]:
    """(rows, columns): of each row with a masked token, the middle one. Predicted tokens that are shown, or another token, do not count."""
    asked = batch.predicted & (batch.input_ids == mask)
    rows, columns = [], []
    for row in range(len(asked)):
        there = asked[row].nonzero().flatten().tolist()
        if there:
            rows.append(row)
            columns.append(there[len(there) // 2])
    where = asked.device
    return torch.tensor(rows, dtype=torch.int64, device=where), torch.tensor(columns, dtype=torch.int64, device=where)


def _teacher_logits(teacher: Teacher, batch: Batch, places: tuple[Tensor, Tensor], vocabulary: int) -> Tensor:
    """[N, V]. Collective for a split teacher."""
    with plain_layers():
        outputs = teacher(batch, places)
    assert outputs.transformed is not None
    with torch.no_grad(), teacher.decoder() as (weight, bias):
        return F.linear(outputs.transformed, weight[:vocabulary], bias[:vocabulary]).float().cpu()


class Words:
    """Token ids as text."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", mask: int) -> None:
        self._tokenizer: Any = tokenizer
        self._mask = mask
        self._hidden = {tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id}

    def token(self, number: int) -> str:
        """One token."""
        text = str(self._tokenizer.decode([number])).strip()
        return text or str(self._tokenizer.convert_ids_to_tokens(number))

    def guesses(self, logits: Tensor) -> list[list[Guess]]:
        """[N, V] -> the most probable tokens of each row, with their probabilities."""
        values, numbers = logits.float().softmax(-1).topk(min(GUESSES, logits.shape[-1]))
        return [
            [(self.token(number), round(value, 4)) for value, number in zip(row, found, strict=True)]
            for row, found in zip(values.tolist(), numbers.tolist(), strict=True)
        ]

    def around(self, batch: Batch, row: int, column: int) -> str:
        """The text of the same document around a position."""
        same = batch.segments[row] == batch.segments[row, column]
        numbers = range(max(0, column - CONTEXT), min(len(same), column + CONTEXT + 1))
        left = self._text([int(batch.input_ids[row, n]) for n in numbers if n < column and same[n]])
        right = self._text([int(batch.input_ids[row, n]) for n in numbers if n > column and same[n]])
        return f"{left} [MASK] {right}".strip()[:TEXT_LIMIT]

    def _text(self, ids: Sequence[int]) -> str:
        text = str(self._tokenizer.decode([number for number in ids if number not in self._hidden]))
        return " ".join(text.replace(self._tokenizer.convert_ids_to_tokens(self._mask), f" {OTHER_MASK} ").split())
