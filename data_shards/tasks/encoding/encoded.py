"""Encoded rows of a task: token ids and labels as flat numpy arrays, and what encoding changed."""

import hashlib
import json
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

IGNORED = -100
"""The label of a token that is not scored."""
Ints = NDArray[np.int32]


@dataclass
class EncodeCounts:
    """Counts of rows and words that encoding changed."""

    examples: int = 0
    truncated: int = 0
    """Rows whose text was cut at max_length; of question answering, none: a long context gets several windows."""
    words: int = 0
    cut_words: int = 0
    """Words of tagging behind the cut: they get no prediction."""
    lost_words: int = 0
    """Words of tagging before the cut that the tokenizer gives no token, such as control characters."""
    special: int = 0
    """Rows whose text spells a special token, such as [SEP], which the tokenizer reads as that token."""
    unmarked: int = 0
    """Rows that do not begin with the tokenizer's [CLS], because its tokenizer.json adds none."""
    windows: int = 0
    """Rows of question answering."""
    split_contexts: int = 0
    """Examples with more than one window."""
    cut_questions: int = 0
    inexact_answers: int = 0
    """Answers that whole tokens cannot give back exactly: the tokens' text is longer."""
    unseen_answers: int = 0
    """Examples with answers of which no window holds the first one whole."""

    def lines(self, split: str) -> list[str]:
        """One line for each count that is not 0."""
        rows = f"of {self.examples:,}"
        texts = {
            "truncated": f"rows cut at max_length: {self.truncated:,} {rows}",
            "cut_words": f"words behind the cut, without a prediction: {self.cut_words:,} of {self.words:,}",
            "lost_words": f"words without a token, and so without a prediction: {self.lost_words:,} of {self.words:,}",
            "special": f"rows whose text spells a special token, which the tokenizer reads as that token: {self.special:,} {rows}",
            "unmarked": f"rows without [CLS], which the tokenizer has but does not add: {self.unmarked:,} {rows}; see its post_processor",
            "windows": f"windows: {self.windows:,} for {self.examples:,} questions; contexts with several: {self.split_contexts:,}",
            "cut_questions": f"questions cut at max_question: {self.cut_questions:,} {rows}",
            "inexact_answers": f"answers that begin or end inside a token, so cannot be exact: {self.inexact_answers:,} {rows}",
            "unseen_answers": f"answers that no window holds whole: {self.unseen_answers:,} {rows}; raise window_overlap",
        }
        return [f"{split}: {text}" for name, text in texts.items() if getattr(self, name)]


@dataclass(frozen=True)
class EncodedTask:
    """The R rows of one split, as a tokenizer reads them. Row r has the tokens offsets[r] : offsets[r + 1] of the flat arrays.

    ids: int32 [T].
    token_types: uint8 [T].
    offsets: int64 [R + 1].
    examples: int32 [R], the number of each row's example in its split, ascending. In question answering an example may have several rows
    (windows). In every other kind it has one.
    labels: None if the split has no labels.
      classification: int32 [R].
      regression: float32 [R].
      multi_label: float32 [R, C].
      tagging: int32 [T], IGNORED except at the first token of each word.
      question_answering: int32 [R, 2], first and last token of the answer in the row. Both are the position of [CLS] if the row has none.
    words: of tagging int32 [T], the number of the word at its first token, else -1.
    characters: of question answering int32 [T, 2], begin and end of a context's token in the context, -1 for other tokens.
    label_names: in order of their numbers.
    pad_id: the id that fills a batch.
    max_length: no row is longer.
    fingerprint: of the tokenizer.
    """

    kind: str
    split: str
    ids: Ints
    token_types: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    examples: Ints
    labels: NDArray[Any] | None
    label_names: tuple[str, ...]
    pad_id: int
    max_length: int
    counts: EncodeCounts
    words: Ints | None = None
    characters: Ints | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row, special tokens included. int64 [R]."""
        return np.diff(self.offsets)

    def digest(self) -> str:
        """sha256 of every array and of the label names: equal for what trains and scores alike. Hexadecimal."""
        total = hashlib.sha256(json.dumps([self.kind, self.label_names, self.pad_id], ensure_ascii=True).encode())
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                total.update(f"{field.name} {value.dtype.str} {value.shape}".encode())
                total.update(np.ascontiguousarray(value).tobytes())
        return total.hexdigest()
