"""Texts to token ids for predictions: cut at a length, and long contexts in overlapping windows as training and scoring have them."""

from dataclasses import dataclass

from tokenizers import Encoding, Tokenizer

from launcher.deployment.prediction.counted import Counted
from launcher.deployment.prediction.inputs import Text
from launcher.deployment.prediction.served import Served
from launcher.errors import LaunchError
from stillhouse.errors import one_line

QUESTION_ANSWERING = (384, 128, 64)
"""max_length, window_overlap and max_question of a task's data, where they are not set."""


@dataclass(frozen=True)
class Limits:
    """max_length: tokens of a row, special tokens included. Question answering: tokens that neighbouring windows share, of a question."""

    max_length: int
    window_overlap: int = 0
    max_question: int = 0


def limits_of(served: Served, max_length: int | None, window_overlap: int | None, max_question: int | None) -> Limits:
    """The limits that are given, or those of tasks, cut to the model's positions. Raises LaunchError where they do not fit."""
    if max_length is not None and max_length > served.max_tokens:
        raise LaunchError(f"--max-length: expected at most {served.max_tokens}, the model's positions, got {max_length}; lower it")
    if served.purpose != "question_answering":
        return Limits(max_length or served.max_tokens)
    length = max_length or min(QUESTION_ANSWERING[0], served.max_tokens)
    overlap = min(QUESTION_ANSWERING[1], length // 3) if window_overlap is None else window_overlap
    question = max_question or min(QUESTION_ANSWERING[2], length // 6)
    if question + overlap + 8 > length:
        raise LaunchError(
            f"--max-length: expected at least --max-question + --window-overlap + 8 = {question + overlap + 8}, got {length}; "
            "raise it, or lower the others"
        )
    return Limits(length, overlap, question)


class TextEncoder:
    """Encodes texts, and counts those that were cut."""

    def __init__(self, served: Served, limits: Limits) -> None:
        self._served, self._limits = served, limits
        self._plain = Tokenizer.from_str(served.tokenizer.to_str())
        self._plain.no_truncation()
        self._spans = served.purpose == "question_answering"
        self._tokenizer = Tokenizer.from_str(self._plain.to_str())
        strategy = "only_second" if self._spans else "longest_first"
        self._tokenizer.enable_truncation(limits.max_length, stride=limits.window_overlap, strategy=strategy)
        self.cut = Counted()

    def windows(self, text: Text) -> list[Encoding]:
        """The rows of a text: one, or the overlapping windows of a context. Raises LaunchError for a text that does not fit."""
        encoding = self._encoding(text)
        if self._spans:
            return [encoding, *encoding.overflowing]
        if encoding.overflowing:
            self.cut.add(text.origin)
        masks = self._served.mask_id
        if self._served.purpose == "masked_lm" and (masks is None or masks not in encoding.ids):
            cut = f" in the first {self._limits.max_length} tokens" if encoding.overflowing else ""
            raise LaunchError(
                f"{text.origin}: expected {self._served.mask_token or 'a mask token'} in the text{cut}, got none; "
                "put it where a word is missing"
            )
        return [encoding]

    def remark(self) -> str | None:
        """A line that counts and names the texts that were cut; None without one."""
        one, several, most = "text was", "texts were", self._limits.max_length
        if self._spans:
            one, several, most = "question was", "questions were", self._limits.max_question
        return self.cut.remark(one, several, f"cut at {most} tokens")

    def _encoding(self, text: Text) -> Encoding:
        try:
            if self._served.purpose == "tagging":
                return self._tokenizer.encode(text.split_words(), is_pretokenized=True)
            if text.pair is None:
                return self._tokenizer.encode(text.text)
            return self._tokenizer.encode(self._question(text) if self._spans else text.text, text.pair)
        except Exception as error:  # tokenizers raises Exception itself
            raise LaunchError(f"{text.origin}: expected a text that fits, got {one_line(error)}; raise --max-length") from error

    def _question(self, text: Text) -> str:
        question = text.text.lstrip()
        encoding = self._plain.encode(question, add_special_tokens=False)
        if len(encoding) > self._limits.max_question:
            self.cut.add(text.origin)
            question = question[: encoding.offsets[self._limits.max_question - 1][1]]
        return question
