"""From a task's configuration to the objects of its run: rows, student, teachers, trainer and scores."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from data_shards.tasks.encoding.encoded import EncodedTask
from kd.batch import Batch
from kd.checkpoint.checkpoint import load_state
from kd.checkpoint.on_disk import Checkpoint
from kd.distributed.rank_progress import RankProgress
from kd.models.encoder import Encoder
from kd.student.settings import chosen_layers
from kd.tasks.metrics.catalogue import metric, metrics_of
from kd.tasks.metrics.extra import tasks_module
from kd.tasks.model import TaskEncoder
from kd.tasks.selection import TaskSelection
from kd.tasks.student import make_task_student, task_student_of_config
from kd.terms import layer_map
from kd.terms.base import StatesTerm
from kd.terms.layer_map import LayerSources
from kd.training.trainer import Trainer
from launcher.config.derived import agreed_attention, agreed_precision, teacher_attention, updates_of
from launcher.config.task_config import TaskRunConfig
from launcher.errors import LaunchError
from launcher.reporting.layer_similarity import Similarities
from launcher.tasks.augment import augment
from launcher.tasks.caching import caching_of
from launcher.tasks.finish import write_task_student
from launcher.tasks.outputs import begins_of
from launcher.tasks.scores import TaskScorer, TaskScores, labels_of, outputs_of
from launcher.tasks.source import CHOOSE, TaskSource, base_model
from launcher.tasks.stream import TaskRows, TaskStream, joined, largest_task_batches, to_task_batch
from launcher.tasks.teachers import TaskTeachers, check_length
from launcher.training.build import similarities_and_maps
from launcher.training.parts import BY_ROW, Attention, RunParts, TrainingData, dropout_of

SAMPLE_TOKENS = 4096
KEPT = "teacher_outputs"
"""The entry of a checkpoint's record of the student that says which teachers' outputs were kept, and their digests."""


def task_data(config: TaskRunConfig, source: TaskSource) -> TrainingData:
    """The rows of a task as the data of a run."""
    described = {"fingerprint": source.digest, "rows": {name: len(examples) for name, examples in source.splits.items()}}
    return TrainingData({"data": source.digest[:12]}, partial(build_task, config, source), described)


def build_task(config: TaskRunConfig, source: TaskSource, checkpoint: Checkpoint | None, progress: RankProgress | None = None) -> RunParts:
    """The objects of a run on a task. Collective."""
    saved = checkpoint.progress.facts if checkpoint is not None else None
    facts = saved or {}
    chosen = agreed_precision(config, saved)
    precision = chosen.precision
    touch = progress.touch if progress is not None else lambda: None
    augment(source, touch)
    teachers = TaskTeachers(config, source, precision, touch, teacher_attention(config, saved))
    notes = source.data.report.lines()
    base = base_model(config)
    train = _training_rows(source, base)
    readings = _readings(config, source, base)
    stream = TaskStream(train, config.train.seed, config.train.global_batch, readings)
    updates = updates_of(config, stream)
    as_read = [readings.get(number, train) for number in range(len(config.members))]
    phases = config.phases_of(updates)
    sizes = [4 * source.columns * int(begins_of(task)[-1]) for task in as_read]
    caching = [caching_of(config, number, phases, len(train), size) for number, size in enumerate(sizes)]
    for split in [name for name in source.splits if len(source.splits[name])]:
        notes += source.encoded(split, base).counts.lines(split)
    student, record, fresh = _student(config, source, teachers, stream, facts.get("student"))
    notes += _remarks(config, source, student, fresh)
    check_length("the student", student.max_positions, config)
    scorer = final = make_scorer(config, source, "dev", base)
    if CHOOSE in source.splits:
        scorer = make_scorer(config, source, CHOOSE, base)
    if checkpoint is None:
        record["teachers"] = [
            teachers.scores(number, make_scorer(config, source, "dev", member.model))
            for number, member in enumerate(config.members.values())
        ]
    attention = agreed_attention(config, precision, student, saved)
    student.use_attention(attention.kernel)
    dropout = dropout_of(saved)
    if dropout == BY_ROW:
        student.key_dropout()
    notes.append(f"attention: {student.attention} ({attention.reason})")
    similarities: Similarities = {}
    if checkpoint is not None:
        maps = layer_map.from_json(facts.get("layer_maps", {}))
    else:
        sample = partial(stream.sample, SAMPLE_TOKENS)
        similarities, maps = similarities_and_maps(phases, student, teachers.whole, sample)
    state = load_state(checkpoint) if checkpoint is not None else None
    if state is not None:
        student.load_weights(state.student)
    began = None if checkpoint is None else record.get(KEPT, [])
    made, record[KEPT] = teachers.made(caching, as_read, began)
    notes += teachers.notes
    trainer = Trainer(
        student,
        made,
        phases,
        vocabulary=0,
        train=config.train,
        precision=precision,
        progress=progress,
        sources=LayerSources(record["copied_layers"], maps),
        select=TaskSelection,
    )
    if checkpoint is not None and state is not None:
        trainer.load(checkpoint, state)
    evaluate = config.evaluate

    def score(encoder: Encoder, everything: bool, before_batch: Callable[[], None]) -> TaskScores:
        assert isinstance(encoder, TaskEncoder)
        scores = scorer.scores(outputs_of(encoder, scorer.task, evaluate.batch, before_batch), evaluate.resamples if everything else None)
        if not everything or scorer is final:
            return scores
        outputs = outputs_of(encoder, final.task, evaluate.batch, before_batch)
        return replace(scores, final=final.scores(outputs, evaluate.resamples))

    def to_batch(rows: TaskRows, update: int) -> Batch:
        return to_task_batch(rows, config.data.kind, update)

    return RunParts(
        trainer=trainer,
        stream=stream,
        to_batch=to_batch,
        score=score,
        evaluate_every=evaluate.every_updates or -(-len(train) // config.train.global_batch),
        updates=updates,
        precision=precision,
        precision_reason=chosen.reason,
        dropout=dropout,
        attention=Attention(student.attention, teachers.attention, attention.reason),
        layer_maps=maps,
        similarities=similarities,
        student=record,
        write=partial(write_task_student, source, final, scorer is final, record),
        largest=partial(largest_task_batches, stream, config.train, config.data.kind),
        notes=notes,
    )


def _readings(config: TaskRunConfig, source: TaskSource, base: str) -> dict[int, Any]:
    """The training rows of teachers with a tokenizer of their own, by the teacher's number. Raises LaunchError where rows must agree."""
    others = {n: member.model for n, member in enumerate(config.members.values()) if not source.reads_alike(member.model, base)}
    if not others:
        return {}
    first = next(iter(others.values()))
    different = f"expected a teacher with the student's tokenizer, got {first} with another"
    if config.data.kind in ("tagging", "question_answering"):
        raise LaunchError(f"teacher.model: {different}: {config.data.kind} compares positions; choose a teacher with the same tokenizer")
    aligned = [place for place, term in config.terms.items() if isinstance(term, StatesTerm)]
    if aligned:
        raise LaunchError(
            f"{aligned[0]}: {different}: the term compares hidden states at positions; drop the term, or choose another teacher"
        )
    if config.teacher_mixing == "random":
        raise LaunchError(f"teacher_mixing: expected mean for teachers with other tokenizers, got random ({first}); use mean")
    return {number: _training_rows(source, model) for number, model in others.items()}


def _training_rows(source: TaskSource, model: str) -> EncodedTask:
    """The rows of train, then those that the teacher labels, as a model's tokenizer reads them."""
    return joined(source.encoded("train", model), [source.encoded(name, model) for name in source.unlabelled if len(source.splits[name])])


def _student(
    config: TaskRunConfig, source: TaskSource, teachers: TaskTeachers, stream: TaskStream, saved: dict[str, Any] | None
) -> tuple[TaskEncoder, dict[str, Any], list[str]]:
    """The student, the record that checkpoints keep, and the weights of its head that start fresh."""
    if saved is not None:
        return task_student_of_config(config.student, saved["model"], config.data.kind), saved, []
    teacher = teachers.whole(0) if config.members and config.student.init == "teacher" else None
    sample = stream.sample(config.student.sample_tokens) if config.student.needs_sample else []
    made = make_task_student(config.student, teacher, config.data.kind, source.labels, config.train.seed, sample)
    copied = chosen_layers(config.student, teacher.layers, config.train.seed) if teacher and config.student.init == "teacher" else None
    values = json.loads(made.encoder.hf.config.to_json_string(use_diff=False))
    return made.encoder, {"model": values, "copied_layers": None if copied is None else list(copied)}, made.fresh


def _remarks(config: TaskRunConfig, source: TaskSource, student: TaskEncoder, fresh: Sequence[str]) -> list[str]:
    """Remarks on the student for the start of a run."""
    lines = [f"student: {', '.join(fresh)} start fresh"] if fresh else []
    if not student.reads_token_types and source.splits["train"].pairs is not None:
        when = "" if config.student.init == "teacher" else " in its pretraining"
        if not when or student.family.name == "distilbert":  # other families have none, whoever made the folder
            lines.append(
                "student: it has no token types, so only a separator tells the texts of a pair apart; "
                f"student.architecture: same{when} keeps them"
            )
    return lines


def make_scorer(config: TaskRunConfig, source: TaskSource, split: str, model: str) -> TaskScorer:
    """Scores of a split as a model's tokenizer reads it."""
    kind = config.data.kind
    metrics = list(metrics_of(kind, config.data.preset))
    if config.evaluate.metric is not None and config.evaluate.metric not in [one.key for one in metrics]:
        metrics.insert(0, metric(kind, config.evaluate.metric))
    task = source.encoded(split, model)
    if task.labels is None:
        label = f"name the column, or label its rows with stillhouse predict {model} FILE" if split == "test" else "name the column"
        raise LaunchError(f"data.{split}: expected labels to score, got none; {label}")
    train_labels = labels_of(source.encoded("train", model), source.splits["train"]) if kind != "question_answering" else None
    return TaskScorer(task, source.splits[split], metrics, config.evaluate.metric or metrics[0].key, train_labels)


def check_metric_packages() -> None:
    """Raise KdError now, and not after training, where the extra `stillhouse[tasks]` is missing."""
    for name in ("sklearn.metrics", "scipy.stats"):
        tasks_module(name)
