"""The modes of a teacher: how the ranks share its weights. Imports no torch.

| mode            | what a rank holds                               | what a forward pass costs                                         |
| replicated      | everything                                      | computing                                                         |
| zero3           | 1/ranks of every matrix; biases and norms whole | also: each layer is gathered when it runs, then dropped           |
| tensor_parallel | 1/ranks of the layers; embeddings, head whole   | also: every rank's batch on every rank, two sums a layer          |
| cached          | embeddings, head                                | the head at the selected positions, and D numbers a token to read |

A mode is one class and its line in MODES. The choices of `teacher.mode` and of `stillhouse cache --mode` and the plan are read from it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from kd.errors import KdError
from stillhouse.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig

    from kd.distributed import process_group
    from kd.models import families
    from kd.models.encoder import Encoder
    from kd.teacher import cached, hidden_state_cache, split, teacher
    from kd.teacher.settings import TeacherSettings
else:
    process_group, families = lazy_module("kd.distributed.process_group"), lazy_module("kd.models.families")
    cached, hidden_state_cache = lazy_module("kd.teacher.cached"), lazy_module("kd.teacher.hidden_state_cache")
    split, teacher = lazy_module("kd.teacher.split"), lazy_module("kd.teacher.teacher")

ALL_OUTPUTS = frozenset({"logits", "last_hidden", "embeddings", "hidden", "queries", "keys", "values"})
CACHED_OUTPUTS = frozenset({"logits", "last_hidden"})


class TeacherMode(ABC):
    """One way to share a teacher. provides: the outputs that an objective may need of it; computes: whether its layers run."""

    name: ClassVar[str]
    provides: ClassVar[frozenset[str]] = ALL_OUTPUTS
    computes: ClassVar[bool] = True

    def check(self, path: str, config: PreTrainedConfig, ranks: int) -> None:  # noqa: B027
        """Raise KdError for a model that this mode cannot split over `ranks` ranks. path: the model's, for the message."""

    @abstractmethod
    def make(self, module: teacher.FrozenEncoder, settings: TeacherSettings, device: torch.device) -> teacher.Teacher:
        """The teacher on this rank, from the whole model on the CPU, which it owns afterwards. Collective."""

    def elements_per_rank(self, encoder: Encoder, ranks: int) -> int:
        """The number of weights that one rank keeps. encoder: also on the meta device."""
        layers = f"{encoder.family.layers}."
        return sum(
            -(-weight.numel() // (ranks if weight.dim() >= 2 and self._is_split(name.startswith(layers)) else 1))
            for name, weight in encoder.hf.named_parameters()
            if self.computes or not name.startswith(layers)
        )

    def _is_split(self, of_layers: bool) -> bool:
        """True if the ranks share a matrix. of_layers: it belongs to the layers."""
        return False


class Replicated(TeacherMode):
    """The whole teacher on every rank."""

    name = "replicated"

    def make(self, module: teacher.FrozenEncoder, settings: TeacherSettings, device: torch.device) -> teacher.Teacher:
        module.to(device)
        return teacher.ReplicatedTeacher(module)


class Zero3(TeacherMode):
    """Every matrix in equal shares, by DeepSpeed's ZeRO stage 3."""

    name = "zero3"

    def make(self, module: teacher.FrozenEncoder, settings: TeacherSettings, device: torch.device) -> teacher.Teacher:
        process_group.start()
        return split.Zero3Teacher(module)

    def _is_split(self, of_layers: bool) -> bool:
        return True


class TensorParallel(TeacherMode):
    """Heads and feed-forward columns of every layer in equal shares."""

    name = "tensor_parallel"

    def check(self, path: str, config: PreTrainedConfig, ranks: int) -> None:
        family = families.family_of(config)
        if family.scores == "own" or family.shared_layers:
            got = f"{family.name} ({path})"
            raise KdError(f"teacher.mode: expected a family whose heads tensor_parallel can split, got {got}; use zero3 or replicated")
        for name in (family.config.heads, family.config.inner):
            if getattr(config, name) % ranks:
                raise KdError(
                    f"teacher.mode: expected ranks that divide the teacher's {name} for tensor_parallel, got {ranks} ranks "
                    f"and {getattr(config, name)} ({path}); change the number of ranks, or use zero3"
                )

    def make(self, module: teacher.FrozenEncoder, settings: TeacherSettings, device: torch.device) -> teacher.Teacher:
        process_group.start()
        module.to(device)
        if process_group.world_size() == 1:  # nothing to split
            return teacher.ReplicatedTeacher(module)
        return split.TensorParallelTeacher(module)

    def _is_split(self, of_layers: bool) -> bool:
        return of_layers


class Cached(TeacherMode):
    """Embeddings and head on every rank; hidden states from a disk."""

    name = "cached"
    provides = CACHED_OUTPUTS
    computes = False

    def make(self, module: teacher.FrozenEncoder, settings: TeacherSettings, device: torch.device) -> teacher.Teacher:
        assert settings.cache is not None
        made = cached.CachedTeacher(module, hidden_state_cache.StateCache(Path(settings.cache)))
        module.to(device)
        return made


MODES: dict[str, TeacherMode] = {mode.name: mode for mode in (Replicated(), Zero3(), TensorParallel(), Cached())}
