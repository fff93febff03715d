"""A teacher whose layers have run before: its last hidden states come from a disk, its head runs here."""

from pathlib import Path

import torch
from torch import Tensor

from kd.batch import Batch
from kd.copies import Indices, moved, positions_of
from kd.errors import KdError
from kd.models.encoder import Encoder
from kd.models.loading import weights_digest
from kd.models.outputs import EncoderOutputs
from kd.models.states import StateKey
from kd.teacher.hidden_state_cache import DTYPES, CacheHeader, StateCache, kept, read_header, row_keys
from kd.teacher.modes import CACHED_OUTPUTS
from kd.teacher.settings import TeacherSettings
from kd.teacher.teacher import FrozenEncoder, ReplicatedTeacher


class CachedTeacher(ReplicatedTeacher):
    """Embeddings and head on every rank, the layers' work in a kd.teacher.hidden_state_cache."""

    provides = CACHED_OUTPUTS

    def __init__(self, module: FrozenEncoder, cache: StateCache) -> None:
        """Drops the encoder's layers. KdError for a cache of another model."""
        check_model(module.encoder, cache.header, str(cache.folder))
        super().__init__(module)
        layers = module.encoder.part(module.encoder.family.layers)
        for name, _ in list(layers.named_children()):
            delattr(layers, name)
        self.cache = cache
        self.positions = cache.header.positions

    def forward(self, batch: Batch, selected: Indices | Tensor, requested: frozenset[StateKey]) -> EncoderOutputs:
        """See Teacher. KdError for a row that the cache lacks; positions that it does not hold are zeros, and no term looks at them."""
        host = batch.on_host
        at = kept(host, self.positions)
        there = at.any(1).tolist()  # a row of padding alone stands for a shard that was passed over
        rows = []
        for number, (file, row) in enumerate(self.cache.find(row_keys(host))):
            if there[number] and file < 0:
                raise KdError(
                    f"teacher.cache {self.cache.folder}: expected the hidden states of window {int(host.windows[number])} as masked now, "
                    "got none; fill it for as many updates as the run has (stillhouse cache), or set teacher.mode: replicated"
                )
            if there[number]:
                rows.append(self.cache.read(int(file), int(row)))
        dtype, device = DTYPES[self.cache.header.precision], batch.input_ids.device
        last = torch.zeros(*batch.input_ids.shape, self.width, dtype=dtype, device=device)
        if rows:
            last[positions_of(at, device)] = moved(torch.cat(rows), device)
        return EncoderOutputs(last, dict.fromkeys(requested, last), self.module.encoder.transform(last[selected]))


def check_model(encoder: Encoder, header: CacheHeader, where: str) -> None:
    """KdError for weights that are not those the cache was filled from."""
    if (found := weights_digest(encoder)) != header.teacher:
        raise KdError(
            f"teacher.cache {where}: expected states of this teacher ({found[:12]}…), got those of another ({header.teacher[:12]}…); "
            "name its own cache, or fill another folder"
        )


def check_cache(place: str, settings: TeacherSettings, encoder: Encoder, precision: str) -> CacheHeader:
    """The header of a member's cache. KdError, from cache.json and config.json alone, for one that cannot be this teacher's.

    place: the setting that names the member; precision: the run's.
    """
    assert settings.cache is not None
    header = read_header(Path(settings.cache))
    wanted = settings.precision or precision
    pairs = [
        ("family", encoder.family.name, header.family),
        ("layers", encoder.layers, header.layers),
        ("width", encoder.width, header.width),
        ("precision", wanted, header.precision),
    ]
    for name, own, its in pairs:
        if own != its:
            advice = f"set {place}.precision: {its}" if name == "precision" else "name this teacher's cache"
            raise KdError(f"{place}.cache {settings.cache}: expected states of {name} {own}, got {its}; {advice}, or fill another folder")
    return header
