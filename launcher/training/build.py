"""From a configuration to the objects of a run, once. Knows both rooms, and checks here what neither can know alone."""

import json
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from data_shards.storage.location import Location
from data_shards.storage.manifest import TOKENIZER, Manifest
from data_shards.stream.stream import Stream, StreamSettings
from kd.batch import Batch
from kd.checkpoint.checkpoint import Checkpoint
from kd.distributed import process_group
from kd.distributed.rank_progress import Whereabouts
from kd.models.encoder import Encoder, load_mlm
from kd.student.student import make_student
from kd.teacher.teachers import make_teachers
from kd.training.trainer import STUDENT, Trainer
from launcher.config.load import RunConfig
from launcher.errors import LaunchError
from launcher.reporting.layer_similarity import (
    LearnedMaps,
    Similarities,
    as_copied,
    as_facts,
    asks_for_cka,
    compared,
    from_facts,
    learned,
    settled,
)
from launcher.training.batches import sample_batches
from launcher.training.start import agreed
from stillhouse.files import write_atomically

SAMPLE_BATCH = 16  # windows at a time
SPARE_ROWS = 256  # a vocabulary may be padded to a round number of rows, no further


@dataclass(frozen=True)
class Parts:
    """What a run is made of."""

    trainer: Trainer
    stream: Stream
    heldout: Stream | None
    updates: int
    precision: str
    maps: LearnedMaps
    """What `layer_map: cka` was settled to."""
    similarities: Similarities
    """What that was read off: on rank 0, where it was now and not before the checkpoint."""


def precision_of(config: RunConfig) -> str:
    """fp32 or bf16: what `auto` means on this machine."""
    if config.train.precision != "auto":
        return config.train.precision
    return "bf16" if process_group.native_bf16() else "fp32"


def attention_of(config: RunConfig, precision: str) -> str:
    """sdpa or eager: what `auto` means on this machine (figures: ARCHITECTURE.md, Decisions)."""
    if config.train.attention != "auto":
        return config.train.attention
    slow_fused_backward = process_group.device().type == "cpu" and precision == "bf16" and config.data.window_tokens <= 256
    return "eager" if slow_fused_backward else "sdpa"


def updates_of(config: RunConfig, stream: Stream | None) -> int:
    """How many updates the run has, whichever way its length is given; a length in epochs needs the stream."""
    train = config.train
    if train.updates is not None:
        return train.updates
    if train.tokens is not None:
        windows = train.tokens / config.data.window_tokens
    else:
        assert train.epochs is not None
        assert stream is not None
        windows = train.epochs * stream.windows_per_epoch
    return max(1, math.ceil(windows / train.global_batch))


def build(config: RunConfig, checkpoint: Checkpoint | None, here: Whereabouts | None = None) -> Parts:
    """Streams, student, teacher and trainer; the trainer stands where the checkpoint, if any, left it. Collective."""
    manifest = Manifest.load(config.data.shards)
    stream = Stream(config.data.shards, "train", config.data.stream, config.train.global_batch)
    whole = config.data.stream.model_copy(update={"on_corrupt": "stop"})  # scores of other windows would not compare
    heldout = Stream(config.data.shards, "heldout", whole, 1) if manifest.entries("heldout") else None
    precision = precision_of(config)
    teacher = load_mlm(first.model) if (first := next(iter(config.members.values()), None)) is not None else None
    student = make_student(config.student, teacher, config.train.seed, sample_of(config))
    for name, encoder in (("teacher", teacher), ("student", student)):
        if encoder is not None:
            check_fits(name, encoder, manifest, config.data.stream)
    student.use_attention(attention_of(config, precision))
    updates = updates_of(config, stream)
    phases = as_copied(config.phases_of(updates), config, teacher.layers) if teacher is not None else config.phases_of(updates)
    maps = from_facts(checkpoint.progress.facts.get("layer_maps", {})) if checkpoint is not None else {}
    similarities: Similarities = {}
    if not maps and any(asks_for_cka(term) for phase in phases for term in phase.terms):
        # rank 0's, for all: other processors may round two near similarities to another order
        similarities = agreed(partial(compared, phases, student, partial(_member, config, teacher), config)) or {}
        maps = from_facts(json.loads(process_group.from_rank_zero(json.dumps(as_facts(learned(similarities))))))
    if checkpoint is not None:
        weights, _ = checkpoint.load()
        own = dict(student.named_parameters())
        with torch.no_grad():
            for name, weight in weights.items():
                if name.startswith(STUDENT):
                    own[name.removeprefix(STUDENT)].copy_(weight)
    del teacher
    trainer = Trainer(
        student,
        make_teachers(list(config.members.values()), config.combine, config.train.seed, precision, process_group.device()),
        settled(phases, maps),
        vocabulary=manifest.vocabulary_size,
        train=config.train,
        precision=precision,
        here=here,
    )
    if checkpoint is not None:
        trainer.load(checkpoint)
    return Parts(trainer, stream, heldout, updates, precision, maps, similarities)


def _member(config: RunConfig, first: Encoder | None, number: int) -> Encoder:
    """Teacher number n, whole: the first one as it is already here."""
    return first if number == 0 and first is not None else load_mlm(list(config.members.values())[number].model)


def sample_of(config: RunConfig) -> list[Batch]:
    """Text for a student that is made smaller by what the teacher does on it."""
    if not config.student.needs_sample:
        return []
    few = min(config.train.global_batch, SAMPLE_BATCH)
    return sample_batches(Stream(config.data.shards, "train", config.data.stream, few), config.student.sample_tokens)


def check_fits(name: str, encoder: Encoder, manifest: Manifest, stream: StreamSettings) -> None:
    """A model and a corpus belong together: vocabulary, window length, and documents side by side."""
    if not manifest.vocabulary_size <= encoder.vocabulary <= manifest.vocabulary_size + SPARE_ROWS:
        raise LaunchError(
            f"{name}: expected a vocabulary of {manifest.vocabulary_size}, the shards', got {encoder.vocabulary}; "
            f"build shards with the {name}'s own tokenizer"
        )
    if stream.window_tokens > encoder.max_positions:
        raise LaunchError(
            f"data.window_tokens: expected at most {encoder.max_positions}, the {name}'s positions, "
            f"got {stream.window_tokens}; shorten them"
        )
    if not encoder.packs and stream.packing == "windows" and not stream.attend_across_documents:
        raise LaunchError(
            f"data.packing: expected documents for the {name}, whose convolution reads across the documents of a window, got windows; "
            "set data.packing: documents (evaluate: --packing documents)"
        )


def tokenizer_folder(config: RunConfig) -> Path:
    """A folder of this machine with the shards' tokenizer: their own, or a copy beside those of remote shards."""
    location = Location.of(config.data.shards, config.data.cache_folder)
    if not location.is_remote:
        return Path(location.root) / TOKENIZER
    manifest = Manifest.load(location)
    files = {name: manifest.sidecar(location, name) for name in manifest.sidecars if name.startswith(f"{TOKENIZER}/")}
    folder = Path(location.cache_folder or "") / f"{TOKENIZER}-{manifest.tokenizer_fingerprint[:16]}"
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        write_atomically(folder / Path(name).name, content)
    return folder
