"""A frozen teacher behind one small interface: whole on every rank, split over them, or its hidden states read from a disk.

kd.teacher.modes lists the ways. All give the same outputs, to rounding. All ranks must call at the same time. A teacher never trains and is
never saved. Every call is in eval mode and without gradients, and it has no parameters() for an optimizer.

In every mode a rank reads the whole model into the host's memory once. In zero3, one weight at a time goes to the device, where only a
share of it stays.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

from kd.batch import Batch
from kd.copies import Indices
from kd.models.capture import capture
from kd.models.encoder import Encoder
from kd.models.outputs import EncoderOutputs
from kd.models.states import StateKey
from kd.teacher.hidden_state_cache import Positions
from kd.teacher.modes import ALL_OUTPUTS


class FrozenEncoder(nn.Module):
    """Encoder, selection and the head's transform in one forward: what a ZeRO-3 engine has to see whole."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.requires_grad_(False).eval()

    def forward(self, batch: Batch, selected: Indices | Tensor, requested: frozenset[StateKey]) -> EncoderOutputs:
        """selected: the positions of `transformed`, as indices or as a mask [B, S]."""
        outputs = capture(self.encoder, batch, requested)
        if outputs.logits is not None:
            return outputs
        return outputs._replace(transformed=self.encoder.transform(outputs.last_hidden[selected]))


class Teacher(ABC):
    """Outputs of a frozen encoder. provides: the outputs that an objective may need; positions: where."""

    provides: frozenset[str] = ALL_OUTPUTS
    positions: Positions = "all"
    whole: bool = False
    """True: it computes on one rank, without collectives."""

    def __init__(self, module: FrozenEncoder) -> None:
        self.module = module
        self.vocabulary = module.encoder.vocabulary
        self.width = module.encoder.width
        self.layers = module.encoder.layers
        self.shape = module.encoder.shape

    def __call__(self, batch: Batch, selected: Indices | Tensor, requested: frozenset[StateKey] = frozenset()) -> EncoderOutputs:
        """The outputs for this rank's batch, in eval mode. requested: the states to keep. Collective."""
        self.module.eval()
        with torch.no_grad():
            return self.forward(batch, selected, requested)

    @property
    def bytes_per_rank(self) -> int:
        """Bytes of the weights and buffers that this rank holds now, each storage counted once and whole."""
        held: dict[int, int] = {}
        for weight in chain(self.module.parameters(), self.module.buffers()):
            for tensor in (weight.data, getattr(weight, "ds_tensor", None)):
                if tensor is not None and tensor.numel() > 0:
                    storage = tensor.untyped_storage()
                    held[storage.data_ptr()] = storage.nbytes()
        return sum(held.values())

    @abstractmethod
    def forward(self, batch: Batch, selected: Indices | Tensor, requested: frozenset[StateKey]) -> EncoderOutputs:
        """The outputs; called in eval mode and without gradients."""

    @abstractmethod
    def decoder(self) -> AbstractContextManager[tuple[Tensor, Tensor]]:
        """The head's decoder, weight [V, D] and bias [V], valid inside the context only. Collective."""


class ReplicatedTeacher(Teacher):
    """The whole teacher on every rank."""

    whole = True

    def forward(self, batch: Batch, selected: Indices | Tensor, requested: frozenset[StateKey]) -> EncoderOutputs:
        """See Teacher."""
        return self.module(batch, selected, requested)

    @contextmanager
    def decoder(self) -> Iterator[tuple[Tensor, Tensor]]:
        """See Teacher."""
        yield self.module.encoder.decoder_weight, self.module.encoder.decoder_bias
