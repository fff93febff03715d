"""From a configuration to the objects of a run, once. Knows both rooms, and checks here what neither can know alone."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from data_shards.storage.location import Location
from data_shards.storage.manifest import TOKENIZER, Manifest
from data_shards.stream.stream import Stream
from kd.batch import Batch
from kd.checkpoint.checkpoint import Checkpoint
from kd.distributed import process_group
from kd.distributed.rank_progress import Whereabouts
from kd.evaluation.cka import layer_similarity
from kd.models.encoder import Encoder, load_mlm
from kd.student.student import make_student
from kd.teacher.teachers import make_teachers
from kd.terms.layer_map import by_similarity
from kd.training.phases import Phase
from kd.training.trainer import STUDENT, Trainer
from launcher.config.derived import attention_of, precision_of, updates_of
from launcher.config.run_config import RunConfig
from launcher.planning.checks import check_fits
from launcher.planning.layer_maps import LayerMaps, asks_for_cka, from_json, to_json, with_copied_maps, with_layer_maps
from launcher.reporting.layer_similarity import Similarities
from launcher.training.batches import sample_batches
from launcher.training.start import agreed
from stillhouse.files import write_atomically

SAMPLE_BATCH = 16  # windows at a time
SAMPLE_ROWS = 8  # at a time, to compare layers
SAMPLE_TOKENS = 4096


@dataclass(frozen=True)
class RunParts:
    """What a run is made of."""

    trainer: Trainer
    stream: Stream
    heldout: Stream | None
    updates: int
    precision: str
    maps: LayerMaps
    """What `layer_map: cka` was settled to."""
    similarities: Similarities
    """What that was read off: on rank 0, where it was now and not before the checkpoint."""


def build(config: RunConfig, checkpoint: Checkpoint | None, here: Whereabouts | None = None) -> RunParts:
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
    phases = with_copied_maps(config.phases_of(updates), config, teacher.layers) if teacher is not None else config.phases_of(updates)
    maps = from_json(checkpoint.progress.facts.get("layer_maps", {})) if checkpoint is not None else {}
    similarities: Similarities = {}
    if not maps and any(asks_for_cka(term) for phase in phases for term in phase.terms):
        # rank 0's, for all: other processors may round two near similarities to another order
        similarities = agreed(partial(compare_layers, phases, student, partial(_member, config, teacher), config)) or {}
        learned = to_json({number: by_similarity(table) for number, table in similarities.items()})
        maps = from_json(json.loads(process_group.from_rank_zero(json.dumps(learned))))
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
        with_layer_maps(phases, maps),
        vocabulary=manifest.vocabulary_size,
        train=config.train,
        precision=precision,
        here=here,
    )
    if checkpoint is not None:
        trainer.load(checkpoint)
    return RunParts(trainer, stream, heldout, updates, precision, maps, similarities)


def _member(config: RunConfig, first: Encoder | None, number: int) -> Encoder:
    """Teacher number n, whole: the first one as it is already here."""
    return first if number == 0 and first is not None else load_mlm(list(config.members.values())[number].model)


def compare_layers(phases: Sequence[Phase], student: Encoder, teacher: Callable[[int], Encoder], config: RunConfig) -> Similarities:
    """What the maps that `cka` means in any phase are read off; teacher: loads teacher number n. Empty, and nothing is computed, where no
    term asks.
    """
    asked = sorted({term.teacher or 0 for phase in phases for term in phase.terms if asks_for_cka(term)})
    if not asked:
        return {}
    batches = first_batches(config)
    return {number: layer_similarity(student, teacher(number), batches, SAMPLE_TOKENS) for number in asked}


def sample_of(config: RunConfig) -> list[Batch]:
    """Text for a student that is made smaller by what the teacher does on it."""
    if not config.student.needs_sample:
        return []
    few = min(config.train.global_batch, SAMPLE_BATCH)
    return sample_batches(Stream(config.data.shards, "train", config.data.stream, few), config.student.sample_tokens)


def first_batches(config: RunConfig, tokens: int = SAMPLE_TOKENS) -> list[Batch]:
    """The stream's first windows, the same for any number of ranks."""
    return sample_batches(Stream(config.data.shards, "train", config.data.stream, SAMPLE_ROWS), tokens)


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
