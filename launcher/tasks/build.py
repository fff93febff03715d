"""From a task's configuration to the objects of its run: rows, student, teachers, trainer and scores."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from data_shards.tasks.encoding.encoded import EncodedTask
from data_shards.tasks.labels import resolve_labels
from kd.batch import Batch
from kd.checkpoint.checkpoint import load_state
from kd.checkpoint.on_disk import Checkpoint
from kd.distributed import process_group
from kd.distributed.rank_progress import RankProgress
from kd.models.config import read_config
from kd.models.encoder import Encoder
from kd.student.settings import chosen_layers
from kd.tasks.loading import load_task
from kd.tasks.metrics.catalogue import metric, metrics_of
from kd.tasks.metrics.extra import tasks_module
from kd.tasks.model import TaskEncoder
from kd.tasks.selection import TaskSelection
from kd.tasks.student import make_task_student, task_student_of_config
from kd.teacher.hidden_state_cache import DTYPES
from kd.teacher.modes import MODES
from kd.teacher.teacher import FrozenEncoder, Teacher
from kd.teacher.teachers import Teachers
from kd.terms import layer_map
from kd.terms.base import StatesTerm
from kd.terms.layer_map import LayerSources
from kd.training.trainer import Trainer
from launcher.config.derived import attention_of, precision_of, updates_of
from launcher.config.task_config import TaskRunConfig
from launcher.errors import LaunchError
from launcher.reporting.layer_similarity import Similarities
from launcher.tasks.finish import write_task_student
from launcher.tasks.scores import TaskScorer, TaskScores, check_finite, labels_of, outputs_of
from launcher.tasks.source import CHOOSE, TaskSource, base_model
from launcher.tasks.stream import TaskRows, TaskStream, joined, to_task_batch
from launcher.training.build import similarities_and_maps
from launcher.training.parts import RunParts, TrainingData

SAMPLE_TOKENS = 4096


def task_data(config: TaskRunConfig, source: TaskSource) -> TrainingData:
    """The rows of a task as the data of a run."""
    described = {"fingerprint": source.digest, "rows": {name: len(examples) for name, examples in source.splits.items()}}
    return TrainingData({"data": source.digest[:12]}, partial(build_task, config, source), described)


def build_task(config: TaskRunConfig, source: TaskSource, checkpoint: Checkpoint | None, progress: RankProgress | None = None) -> RunParts:
    """The objects of a run on a task. Collective."""
    facts = checkpoint.progress.facts if checkpoint is not None else {}
    models = {number: _load_teacher(config, source, place) for number, place in enumerate(config.members)}
    notes = source.data.report.lines()
    base = base_model(config)
    train = _training_rows(source, base)
    stream = TaskStream(train, config.train.seed, config.train.global_batch, _readings(config, source, base))
    updates, precision = updates_of(config, stream), precision_of(config)
    for split in source.splits:
        notes += source.encoded(split, base).counts.lines(split)
    student, record, fresh = _student(config, source, models.get(0), stream, facts.get("student"))
    notes += _remarks(config, source, student, fresh)
    _check_length("student", student, config)
    scorer = final = make_scorer(config, source, "dev", base)
    if CHOOSE in source.splits:
        scorer = make_scorer(config, source, CHOOSE, base)
    if checkpoint is None:
        record["teachers"] = [
            _teacher_scores(config, source, place, model) for place, model in zip(config.members, models.values(), strict=True)
        ]
    student.use_attention(attention_of(config, precision))
    similarities: Similarities = {}
    if checkpoint is not None:
        maps = layer_map.from_json(facts.get("layer_maps", {}))
    else:
        sample = partial(stream.sample, SAMPLE_TOKENS)
        similarities, maps = similarities_and_maps(config.phases_of(updates), student, lambda number: models[number], sample)
    state = load_state(checkpoint) if checkpoint is not None else None
    if state is not None:
        student.load_weights(state.student)
    trainer = Trainer(
        student,
        _teachers(config, precision, list(models.values())),
        config.phases_of(updates),
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
        layer_maps=maps,
        similarities=similarities,
        student=record,
        write=partial(write_task_student, source, final, scorer is final, record),
        notes=notes,
    )


def _load_teacher(config: TaskRunConfig, source: TaskSource, place: str) -> TaskEncoder:
    """A teacher with its labels in the task's order, by name. place: the setting that names it."""
    member = config.members[place]

    def order(where: str, names: list[str]) -> list[int]:
        return resolve_labels(source.labels, dict(enumerate(names)), member.label_map, where, f"{place}.label_map")

    model = load_task(member.model, config.data.kind, order)
    _check_length("teacher", model, config)
    return model


def _check_length(role: str, encoder: Encoder, config: TaskRunConfig) -> None:
    if config.data.max_length > encoder.max_positions:
        raise LaunchError(
            f"data.max_length: expected at most {encoder.max_positions}, the {role}'s positions, got {config.data.max_length}; lower it"
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
    """The rows of train, then those of the unlabelled files, as a model's tokenizer reads them."""
    unlabelled = [source.encoded("unlabelled", model)] if "unlabelled" in source.splits else []
    return joined(source.encoded("train", model), unlabelled)


def _student(
    config: TaskRunConfig, source: TaskSource, teacher: TaskEncoder | None, stream: TaskStream, saved: dict[str, Any] | None
) -> tuple[TaskEncoder, dict[str, Any], list[str]]:
    """The student, the record that checkpoints keep, and the weights of its head that start fresh."""
    if saved is not None:
        return task_student_of_config(config.student, saved["model"], config.data.kind), saved, []
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


def _teachers(config: TaskRunConfig, precision: str, models: Sequence[TaskEncoder]) -> Teachers:
    made: list[Teacher] = []
    members = list(config.members.values())
    for member, model in zip(members, models, strict=True):
        mode = MODES[member.mode]
        mode.check(member.model, read_config(member.model), process_group.world_size())
        dtype = DTYPES[member.precision or precision]
        for weight in model.parameters():
            weight.data = weight.data.to(dtype)
        made.append(mode.make(FrozenEncoder(model), member, process_group.device()))
    return Teachers(made, [member.weight for member in members] or (1.0,), config.teacher_mixing, config.train.seed)


def make_scorer(config: TaskRunConfig, source: TaskSource, split: str, model: str) -> TaskScorer:
    """Scores of a split as a model's tokenizer reads it."""
    kind = config.data.kind
    metrics = list(metrics_of(kind, config.data.preset))
    if config.evaluate.metric is not None and config.evaluate.metric not in [one.key for one in metrics]:
        metrics.insert(0, metric(kind, config.evaluate.metric))
    task = source.encoded(split, model)
    if task.labels is None:
        raise LaunchError(f"data.{split}: expected labels, got none; name the column")
    train_labels = labels_of(source.encoded("train", model), source.splits["train"]) if kind != "question_answering" else None
    return TaskScorer(task, source.splits[split], metrics, config.evaluate.metric or metrics[0].key, train_labels)


def _teacher_scores(config: TaskRunConfig, source: TaskSource, place: str, model: TaskEncoder) -> dict[str, Any]:
    """A teacher's scores on dev. Raises LaunchError for one that is no better than a constant prediction. Collective."""
    member = config.members[place]
    scorer = make_scorer(config, source, "dev", member.model)
    model.to(process_group.device())
    outputs = outputs_of(model, scorer.task, config.evaluate.batch)
    check_finite(f"{place}.model", outputs)
    scores = scorer.scores(outputs, config.evaluate.resamples)
    model.to("cpu")
    key = scorer.deciding.key
    value, constant = scores.values[key], scorer.constant[key]
    if value <= constant and not member.allow_untrained:
        raise LaunchError(
            f"{place}.model: expected a teacher better than a constant prediction on dev ({key} {constant:.3f}), got {value:.3f}; "
            f"fine-tune it first (stillhouse task train), or set {place}.allow_untrained: true"
        )
    return scores.row


def check_metric_packages() -> None:
    """Raise KdError now, and not after training, where the extra `stillhouse[tasks]` is missing."""
    for name in ("sklearn.metrics", "scipy.stats"):
        tasks_module(name)
