"""A model ready to predict: a Hugging Face folder in torch, or an exported folder in ONNX Runtime, behind one interface."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from data_shards.tasks.encoding.encode import own_pipeline
from kd.export.onnx_graph import OUTPUT_BYTES
from kd.export.runtime import AnySession, Session, TorchSession
from launcher.deployment.folder import MODEL, RECORD, TOKENIZER, is_exported, read_exported
from launcher.deployment.models import open_model
from launcher.errors import LaunchError
from stillhouse.errors import one_line


@dataclass(frozen=True)
class Served:
    """A session with its tokenizer, which neither cuts nor pads. labels: in the order of the head.

    mask_id: None where the tokenizer has no mask token.
    """

    purpose: str
    session: AnySession
    tokenizer: Tokenizer
    labels: list[str]
    mask_token: str | None
    mask_id: int | None
    pad_id: int
    max_tokens: int
    vocabulary: int

    def logits(self, encodings: Sequence[Encoding]) -> list[NDArray[np.float32]]:
        """The outputs for each row: [outputs, ...]. Those of tokens are without padding; of a masked-language model at masks alone."""
        width = max(len(one.ids) for one in encodings)
        shape = (len(encodings), width)
        arrays = {"input_ids": np.full(shape, self.pad_id, np.int64)}
        arrays |= {name: np.zeros(shape, np.int64) for name in ("attention_mask", "token_type_ids")}
        for row, one in enumerate(encodings):
            length = len(one.ids)
            arrays["input_ids"][row, :length] = one.ids
            arrays["attention_mask"][row, :length] = 1
            arrays["token_type_ids"][row, :length] = one.type_ids
        made = self.session.run([arrays[name] for name in self.session.inputs])
        if self.purpose == "masked_lm":  # a copy of these, so that the logits of all positions are not kept
            return [made[0][row, : len(one.ids)][np.asarray(one.ids) == self.mask_id][None] for row, one in enumerate(encodings)]
        by_token = self.purpose in ("hidden", "tagging", "question_answering")
        return [
            np.stack([output[row, : len(one.ids)] if by_token else output[row] for output in made]) for row, one in enumerate(encodings)
        ]

    def batches(self, lengths: Sequence[int], rows: int) -> Iterator[range]:
        """Rows of ascending lengths in batches of at most `rows`, fewer where the logits of a large vocabulary would be too large."""
        start = 0
        while start < len(lengths):
            end = min(start + rows, len(lengths))
            while self.purpose == "masked_lm" and end - start > max(1, OUTPUT_BYTES // (4 * lengths[end - 1] * self.vocabulary)):
                end -= 1
            yield range(start, end)
            start = end


def serve(path: str, threads: int | None = None) -> Served:
    """Open a folder. Raises LaunchError for an exported folder whose files were changed, and for one without an ONNX model."""
    if not is_exported(path):
        model = open_model(path)
        loaded: Any = model.tokenizer()
        backend = Tokenizer.from_str(loaded.backend_tokenizer.to_str())
        session: AnySession = TorchSession(model.exported)
        shape = model.encoder.max_positions, model.encoder.vocabulary
        return _served(model.purpose, session, backend, model.labels, loaded.mask_token, loaded.pad_token_id, shape)
    folder = read_exported(path)
    record = folder.record
    if record["model_format"] != "onnx":
        served = open_model(path, torch.bfloat16 if record["precision"] == "bf16" else torch.float32)
        backend = _tokenizer(folder.path / TOKENIZER)
        session = TorchSession(served.exported)
    else:
        backend, session = _tokenizer(folder.path / TOKENIZER), Session(folder.path / MODEL, threads)
        labels = len(record["labels"])
        if labels and isinstance(session.width, int) and session.width != labels:
            got = f"got {labels}; export the model again"
            raise LaunchError(f"{folder.path / RECORD}: expected {session.width} labels, as many as the model has outputs, {got}")
    shape = record["max_tokens"], record["vocabulary"]
    return _served(record["task"], session, backend, record["labels"], record["mask_token"], record["pad_id"], shape)


def _tokenizer(path: Any) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises Exception itself
        raise LaunchError(f"{path}: expected a tokenizer, got {one_line(error)}; export the model again") from error


def _served(
    purpose: str, session: AnySession, backend: Tokenizer, labels: list[str], mask: str | None, pad_id: int | None, shape: tuple[int, int]
) -> Served:
    backend = own_pipeline(backend.to_str(), words=purpose == "tagging")
    mask_id = None if mask is None else backend.token_to_id(mask)
    return Served(purpose, session, backend, labels, mask, mask_id, pad_id or 0, *shape)
