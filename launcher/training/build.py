"""From a configuration to the objects of a run. Each teacher, the corpus and the checkpoint are read once.

A new run makes its student from the teacher and measures the layer maps of `cka`. A resumed run takes both from its checkpoint.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from data_shards.corpus import Corpus
from data_shards.stream.stream import Stream
from kd.batch import Batch
from kd.checkpoint.checkpoint import load_state
from kd.checkpoint.on_disk import Checkpoint
from kd.distributed import process_group
from kd.distributed.rank_progress import RankProgress
from kd.evaluation.cka import layer_similarity
from kd.evaluation.mlm import MlmScores
from kd.models.encoder import Encoder
from kd.student.settings import chosen_layers
from kd.student.student import make_student, student_of_config
from kd.teacher.teachers import TeacherModels, make_teachers
from kd.terms import layer_map
from kd.terms.base import has_layer_map
from kd.terms.layer_map import LayerMaps, LayerSources, by_similarity
from kd.training.phases import Phase
from kd.training.teaching import bands_of
from kd.training.trainer import Trainer
from launcher.config.derived import agreed_attention, agreed_precision, teacher_attention, updates_of
from launcher.config.run_config import RunConfig
from launcher.planning.checks import check_fits
from launcher.process.rank_zero import on_rank_zero
from launcher.reporting.layer_similarity import Similarities
from launcher.training.batches import largest_batches, sample_of_corpus, to_batch
from launcher.training.diagnostics.guesses import Samples, samples_of
from launcher.training.diagnostics.similarity import Similarity, similarity_to
from launcher.training.evaluations import heldout_scores
from launcher.training.finish import write_student
from launcher.training.parts import BY_ROW, Attention, RunParts, TrainingData, dropout_of

SAMPLE_BATCH = 16  # windows at a time, for a student that is made smaller
CKA_TOKENS, CKA_ROWS = 4096, 8


def data_of(config: RunConfig, corpus: Corpus) -> TrainingData:
    """The corpus as the data of a run."""
    manifest = corpus.manifest
    described: dict[str, Any] = {
        split: {"shards": len(entries), "documents": manifest.documents(split), "tokens": manifest.tokens(split)}
        for split, entries in manifest.splits.items()
    }
    described |= {name: getattr(manifest, name) for name in ("vocabulary_size", "fingerprint", "tokenizer_fingerprint")}
    return TrainingData({"data.shards": manifest.fingerprint[:12]}, partial(build, config, corpus), described)


def build(config: RunConfig, corpus: Corpus, checkpoint: Checkpoint | None, progress: RankProgress | None = None) -> RunParts:
    """Streams, student, teachers and trainer. With a checkpoint, the trainer continues from it. Collective."""
    manifest = corpus.manifest
    stream = Stream(corpus, "train", config.data.stream, config.train.global_batch)
    whole = config.data.stream.model_copy(update={"on_corrupt": "stop"})  # scores of other windows would not compare
    heldout = Stream(corpus, "heldout", whole, 1) if manifest.entries("heldout") else None
    saved = checkpoint.progress.facts if checkpoint is not None else None
    chosen = agreed_precision(config, saved)
    precision, updates = chosen.precision, updates_of(config, stream)
    members = list(config.members.values())
    models = TeacherModels([member.model for member in members])
    facts = saved or {}
    student, made_from = _student(config, corpus, models, facts.get("student"))
    check_fits("student", student, manifest, config.data.stream)
    attention = agreed_attention(config, precision, student, saved)
    of_teachers = teacher_attention(config, saved)
    student.use_attention(attention.kernel)
    dropout = dropout_of(saved)
    if dropout == BY_ROW:
        student.key_dropout()
    similarities: Similarities = {}
    if checkpoint is not None:
        maps = layer_map.from_json(facts.get("layer_maps", {}))
    else:
        sample = partial(sample_of_corpus, config, corpus, CKA_ROWS, CKA_TOKENS)
        similarities, maps = similarities_and_maps(config.phases_of(updates), student, models.whole, sample)
    state = load_state(checkpoint) if checkpoint is not None else None
    if state is not None:
        student.load_weights(state.student)
    trainer = Trainer(
        student,
        make_teachers(members, config.teacher_mixing, config.train.seed, precision, process_group.device(), models, of_teachers),
        config.phases_of(updates),
        vocabulary=manifest.vocabulary_size,
        train=config.train,
        precision=precision,
        progress=progress,
        sources=LayerSources(made_from["copied_layers"], maps),
        bands=bands_of(torch.from_numpy(corpus.token_statistics.counts.astype("float64"))),
    )
    if checkpoint is not None and state is not None:
        trainer.load(checkpoint, state)
    evaluate = config.evaluate

    def score(student: Encoder, everything: bool, before_batch: Callable[[], None]) -> MlmScores:
        assert heldout is not None
        windows = None if everything else evaluate.windows
        return heldout_scores(student, heldout, trainer.vocabulary, evaluate.batch, windows, before_batch=before_batch)

    return RunParts(
        trainer=trainer,
        stream=stream,
        to_batch=to_batch,
        score=score if heldout is not None else None,
        evaluate_every=evaluate.every_updates,
        updates=updates,
        precision=precision,
        precision_reason=chosen.reason,
        dropout=dropout,
        attention=Attention(student.attention, of_teachers, attention.reason),
        layer_maps=maps,
        similarities=similarities,
        student=made_from,
        write=partial(write_student, corpus),
        similarity=_similarity(config, trainer, heldout),
        samples=_samples(config, corpus, trainer, heldout),
        largest=partial(largest_batches, stream, config.train, config.data.window_tokens),
        notes=[f"attention: {student.attention} ({attention.reason})"],
    )


def _similarity(config: RunConfig, trainer: Trainer, heldout: Stream | None) -> Similarity | None:
    """The similarity of the student's layers with the first teacher's, if it is asked for."""
    if config.evaluate.layer_similarity_every is None or heldout is None:
        return None
    return similarity_to(trainer.teachers.members[0], heldout)


def _samples(config: RunConfig, corpus: Corpus, trainer: Trainer, heldout: Stream | None) -> Samples | None:
    """Masked sentences with guesses. A cached teacher has no hidden states of held-out windows, so it makes none."""
    if not config.evaluate.samples or heldout is None:
        return None
    computes = [
        member for member, settings in zip(trainer.teachers.members, config.members.values(), strict=True) if settings.mode != "cached"
    ]
    return samples_of(corpus, heldout, next(iter(computes), None), config.evaluate.samples, corpus.manifest.vocabulary_size)


def _student(config: RunConfig, corpus: Corpus, models: TeacherModels, saved: dict[str, Any] | None) -> tuple[Encoder, dict[str, Any]]:
    """The student, and the record of its origin that checkpoints keep. saved: that record; checkpoints of version 0.1.0 have none."""
    if saved is not None:
        return student_of_config(config.student, saved["model"]), saved
    teacher = models.whole(0) if config.members else None
    if teacher is not None:
        check_fits("teacher", teacher, corpus.manifest, config.data.stream)
    student = make_student(config.student, teacher, config.train.seed, sample_of(config, corpus))
    copied = chosen_layers(config.student, teacher.layers, config.train.seed) if teacher and config.student.init == "teacher" else None
    values = json.loads(student.hf.config.to_json_string(use_diff=False))
    return student, {"model": values, "copied_layers": None if copied is None else list(copied)}


def similarities_and_maps(
    phases: Sequence[Phase], student: Encoder, teacher: Callable[[int], Encoder], sample: Callable[[], Sequence[Batch]]
) -> tuple[Similarities, LayerMaps]:
    """The layer similarities of a new run (on rank 0), and the maps that `cka` stands for (on every rank). Collective."""
    # rank 0's, for all: other processors may round two near similarities to another order
    similarities = on_rank_zero(partial(measure_similarities, phases, student, teacher, sample)) or {}
    learned = {number: by_similarity(table) for number, table in similarities.items()}
    return similarities, layer_map.from_json(json.loads(process_group.from_rank_zero(json.dumps(layer_map.to_json(learned)))))


def measure_similarities(
    phases: Sequence[Phase], student: Encoder, teacher: Callable[[int], Encoder], sample: Callable[[], Sequence[Batch]]
) -> Similarities:
    """Layer similarities (linear CKA) for each teacher that a term with `layer_map: cka` learns from; {} if there is no such term.

    teacher: loads teacher number n. sample: gives batches of at least CKA_TOKENS positions.
    """
    numbers = sorted({term.teacher or 0 for phase in phases for term in phase.terms if has_layer_map(term, "cka")})
    if not numbers:
        return {}
    batches = sample()
    return {number: layer_similarity(student, teacher(number), batches, CKA_TOKENS) for number in numbers}


def sample_of(config: RunConfig, corpus: Corpus) -> list[Batch]:
    """Text for a student that is made smaller by the teacher's activations on it; [] for other students."""
    if not config.student.needs_sample:
        return []
    return sample_of_corpus(config, corpus, min(config.train.global_batch, SAMPLE_BATCH), config.student.sample_tokens)
