"""The data of a task as a run needs it: rows read once, encoded once for each tokenizer."""

from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from data_shards.tasks.encoding.encode import encode
from data_shards.tasks.encoding.encoded import EncodedTask
from data_shards.tasks.examples import Examples
from data_shards.tasks.splits import TaskData, hold_out, read_task
from data_shards.tokenizer.tokenizer import load_tokenizer
from launcher.config.task_config import AugmentSettings, TaskRunConfig
from launcher.errors import LaunchError
from stillhouse.digests import canonical_sha256

AUGMENTED = "augmented"
"""The rows that data.augment makes of train."""
LONGEST_TEXTS, SAMPLED_TEXTS, ROW_BYTES = 64, 256, 400
"""Texts of a split that are read for the length of the longest row, and for the mean.
Bytes of a row's strings and lists beside its letters."""
CHOOSE = "choose"
"""The part of train that chooses the best evaluation."""


@dataclass
class TaskSource:
    """The examples of a task by split, and their encodings by tokenizer. evaluate.choose_on makes a part of train a split of its own."""

    config: TaskRunConfig
    data: TaskData
    splits: dict[str, Examples]
    _tokenizers: dict[str, PreTrainedTokenizerBase] = field(default_factory=dict)
    _encoded: dict[tuple[str, str], EncodedTask] = field(default_factory=dict)

    @classmethod
    def read(cls, config: TaskRunConfig) -> "TaskSource":
        """Read every split. Raises DataError for rows that cannot be used, LaunchError without a development set."""
        data = read_task(config.data)
        splits = dict(data.splits)
        if "dev" not in splits:
            raise LaunchError("data.dev: expected a development set, got none; name a file, or set data.dev_fraction: 0.1")
        if "unlabelled" in splits and not config.members:
            data.report.note(f"unlabelled: {len(splits.pop('unlabelled')):,} rows are left out, for without a teacher nothing labels them")
        if config.data.augment is not None and not config.members:
            data.report.note("augment: no rows are made, for without a teacher nothing labels them")
        if config.evaluate.choose_on:
            splits["train"], splits[CHOOSE] = hold_out(splits["train"], config.evaluate.choose_on, config.data.split_seed, CHOOSE)
        return cls(config, data, splits)

    @property
    def augment(self) -> AugmentSettings | None:
        """The settings of the augmentation; None without it, and without a teacher to label its rows."""
        return self.config.data.augment if self.config.members else None

    def add_augmented(self, rows: Examples, note: str) -> None:
        """Add the augmented rows as a split."""
        self.splits[AUGMENTED] = rows
        self.data.report.note(note)

    @property
    def unlabelled(self) -> list[str]:
        """The splits that the teacher labels, in the order in which they follow train."""
        return [name for name in ("unlabelled", AUGMENTED) if name in self.splits]

    @property
    def labels(self) -> list[str]:
        """Label names in order; [] for regression and question answering."""
        return list(self.data.labels or [])

    @property
    def columns(self) -> int:
        """Numbers that a head gives for a row, word or token."""
        return {"regression": 1, "question_answering": 2}.get(self.config.data.kind) or len(self.labels)

    @property
    def digest(self) -> str:
        """sha256 of every split."""
        return canonical_sha256({name: examples.digest() for name, examples in self.splits.items()}, ascii_only=True)

    def tokenizer(self, model: str) -> PreTrainedTokenizerBase:
        """The tokenizer of a model folder or hub name."""
        if model not in self._tokenizers:
            self._tokenizers[model] = load_tokenizer(model)
        return self._tokenizers[model]

    def encoded(self, split: str, model: str) -> EncodedTask:
        """A split as a model's tokenizer reads it."""
        key = split, self._identity(model)
        if key not in self._encoded:
            self._encoded[key] = encode(self.splits[split], self.tokenizer(model), self.config.data, self.labels)
        return self._encoded[key]

    def longest(self, model: str) -> int:
        """Tokens of the longest training row as a model's tokenizer reads it: of encoded rows exactly, else of the longest texts."""
        parts = ["train", *self.unlabelled]
        known = [self._encoded[key].lengths for name in parts if (key := (name, self._identity(model))) in self._encoded]
        if len(known) == len(parts):
            return max(int(lengths.max()) for lengths in known if len(lengths))
        if self.config.data.kind == "question_answering":
            return self.config.data.max_length
        most = 0
        for name in parts:
            rows = self.splits[name]
            size = [len(text) + len(pair) for text, pair in zip(rows.texts, rows.pairs or [""] * len(rows), strict=True)]
            order = sorted(range(len(rows)), key=lambda number: -size[number])[:LONGEST_TEXTS]
            if order:
                part = encode(rows.take(order), self.tokenizer(model), self.config.data, self.labels)
                most = max(most, int(part.lengths.max()))
        return most or self.config.data.max_length

    def mean(self, model: str) -> int:
        """Tokens of the mean training row: of encoded rows exactly, else of texts at equal distances."""
        parts = ["train", *self.unlabelled]
        known = [self._encoded[key].lengths for name in parts if (key := (name, self._identity(model))) in self._encoded]
        if len(known) < len(parts):
            rows = self.splits["train"]
            some = rows.take(range(0, len(rows), -(-len(rows) // SAMPLED_TEXTS)))
            known = [encode(some, self.tokenizer(model), self.config.data, self.labels).lengths]
        return round(sum(int(lengths.sum()) for lengths in known) / sum(map(len, known)))

    @property
    def text_bytes(self) -> int:
        """About the bytes of all texts in memory, with their ids and labels."""
        rows = sum(len(examples) for examples in self.splits.values())
        texts = sum(sum(map(len, column)) for part in self.splits.values() for column in (part.texts, part.pairs or []))
        return 2 * texts + ROW_BYTES * rows

    def reads_alike(self, model: str, other: str) -> bool:
        """True if the tokenizers of two models give the same ids for every text."""
        return self._identity(model) == self._identity(other)

    def _identity(self, model: str) -> str:
        return fingerprint(self.tokenizer(model))


def fingerprint(tokenizer: Any) -> str:
    """A digest of what decides a fast tokenizer's ids, without its truncation and padding."""
    backend = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    return canonical_sha256([backend.to_str(), tokenizer.pad_token_id], ascii_only=True)


def base_model(config: TaskRunConfig) -> str:
    """The model whose tokenizer the student has: that of its folder, or that of the teacher whose layers it takes."""
    if config.student.init != "teacher":
        return config.student.init
    return next(iter(config.members.values())).model
