"""A teacher whose outputs on every training row were computed before: a file of them, and the teacher that reads it.

The file holds the outputs of one model on one set of rows. Its name comes from both, so it is found by content. The digest of the values
is checked whenever the file is read.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from kd.batch import Batch
from kd.copies import Indices, moved, positions_of
from kd.models.outputs import EncoderOutputs
from kd.models.states import StateKey
from kd.tasks.batch import TaskBatch
from kd.teacher.teacher import FrozenEncoder, Teacher
from stillhouse.files import write_atomically

FORMAT = 1
VALUES = "outputs"


class CachedOutputs(Teacher):
    """A teacher that gives its logits from a table. For hidden states and attention it runs `computing`.

    module: the teacher's shape; its weights may be on the meta device.
    """

    def __init__(self, module: FrozenEncoder, values: Tensor, begins: NDArray[np.int64], computing: Teacher | None = None) -> None:
        """values: [N, C] fp32 on the CPU. Row r of the training data has values[begins[r] : begins[r + 1]]."""
        super().__init__(module)
        self._values, self._begins, self._computing = values, begins, computing
        self.whole = computing is None or computing.whole

    def forward(self, batch: Batch, selected: Indices | Tensor, requested: frozenset[StateKey]) -> EncoderOutputs:
        """See Teacher."""
        assert isinstance(batch, TaskBatch)
        if requested:
            assert self._computing is not None
            return self._computing(batch, selected, requested)
        device = batch.input_ids.device
        host = batch.on_host
        rows = host.windows.numpy()
        places = np.concatenate([np.arange(self._begins[row], self._begins[row + 1]) for row in rows])
        values = moved(self._values[torch.from_numpy(places)], device)
        if batch.kind in ("tagging", "question_answering"):
            where = batch.word_positions if batch.kind == "tagging" else positions_of(host.real, device)
            whole = values.new_zeros(*batch.input_ids.shape, values.shape[-1])
            whole[where] = values
            values = whole
        return EncoderOutputs(values.new_zeros(0), {}, logits=values)

    @contextmanager
    def decoder(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Not for a task, whose head gives its logits itself."""
        raise NotImplementedError("a task has no decoder")
        yield


def digest_of(values: Tensor) -> str:
    """sha256 of values on the CPU. Hexadecimal."""
    return hashlib.sha256(values.contiguous().numpy().data).hexdigest()


def read_outputs(path: Path) -> tuple[Tensor, dict[str, float]] | str:
    """(values, numbers) of a file, mapped into memory; or a sentence about a file that is damaged. Raises FileNotFoundError."""
    if not path.exists():
        raise FileNotFoundError(path)
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            values: Tensor = file.get_tensor(VALUES)
        digest, numbers = facts["sha256"], {name: float(number) for name, number in facts["numbers"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        return f"{path}: expected outputs of a teacher, got {type(error).__name__}"
    if values.dtype != torch.float32 or digest_of(values) != digest:
        return f"{path}: expected the values that were written, got others"
    return values, numbers


def write_outputs(path: Path, values: Tensor, numbers: dict[str, float]) -> None:
    """Put a file in its place, whole or not at all. Several processes may write the same one. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {"format": FORMAT, "sha256": digest_of(values), "numbers": numbers}
    write_atomically(path, save({VALUES: values.contiguous()}, {"facts": json.dumps(facts)}), shared=True)
