"""What neither room can know alone is checked before anything is built; `auto` means something definite."""

import json
from pathlib import Path

import pytest
import torch

from data_shards.corpus import Corpus
from data_shards.stream.settings import StreamSettings
from data_shards.stream.stream import Stream
from kd.checkpoint.checkpoint import STUDENT, Checkpoint, FullState, Progress
from kd.errors import KdError
from kd.kernels.dropout import Dropout
from kd.models import loading
from kd.models.encoder import Encoder
from kd.models.loading import load_mlm
from kd.student.student import make_student
from kd.teacher.teachers import Teachers
from kd.terms import layer_map
from launcher.errors import LaunchError
from launcher.planning.plan import make_plan
from launcher.training import build as building
from launcher.training.batches import sample_batches
from launcher.training.build import build, sample_of


def test_a_teacher_that_does_not_fit_is_refused_before_anything_is_built(save_model, make_config, corpus, tmp_path: Path):
    save_model(tmp_path / "other", corpus.vocabulary + 900)
    with pytest.raises(LaunchError, match=rf"^teacher: expected a vocabulary of {corpus.vocabulary}, the shards', got "):
        build(make_config(f"teacher.model={tmp_path / 'other'}"), Corpus.open(corpus.shards), None)
    with pytest.raises(LaunchError, match=r"^data\.window_tokens: expected at most 48, the teacher's positions, got 64"):
        build(make_config("data.window_tokens=64"), Corpus.open(corpus.shards), None)


def test_a_student_folder_that_does_not_fit_is_refused_too(save_model, make_config, corpus, tmp_path: Path):
    save_model(tmp_path / "small", corpus.vocabulary - 1)
    with pytest.raises(LaunchError, match=r"^student: expected a vocabulary of "):
        build(
            make_config("teacher=null", f"student={{init: {tmp_path / 'small'}}}", "objective=[{kind: mlm}]"),
            Corpus.open(corpus.shards),
            None,
        )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("student.layers=[0, 4]", r"student\.layers: expected layers from 0 to 3, the teacher's last, got 4"),
        ("student.count=5", r"student\.count: expected at most 4, the teacher's layers, got 5"),
        ("student.layers=distilbert", r"student\.layers: expected a teacher of 12 layers for policy distilbert, got 4"),
        ("teacher.model=/nowhere/m", r"/nowhere/m: expected "),
    ],
)
def test_a_student_that_the_teacher_cannot_give_is_refused(make_config, corpus, override: str, message: str):
    with pytest.raises(KdError, match=message):
        build(make_config(override), Corpus.open(corpus.shards), None)


class NoTrainer:
    """What build hands to a trainer, and nothing trained."""

    def __init__(self, student: Encoder, teachers: Teachers, *_: object, vocabulary: int, **__: object) -> None:
        self.student, self.teachers, self.vocabulary, self.loaded = student, teachers, vocabulary, 0

    def load(self, saved: Checkpoint, state: FullState) -> None:
        self.loaded += 1


@pytest.mark.parametrize("words", [("student.width=24", "student.architecture=same"), ("objective.2.layer_map=cka",)])
def test_a_start_reads_its_teacher_once_and_a_resumed_one_makes_no_student_again(make_config, monkeypatch, tmp_path, words):
    config = make_config("teacher.precision=bf16", *words, *(["objective=[{kind: soft_targets}]"] if "width" in words[0] else []))
    reads: list[torch.dtype] = []
    from_pretrained = loading.AutoModelForMaskedLM.from_pretrained
    monkeypatch.setattr(
        loading.AutoModelForMaskedLM, "from_pretrained", lambda *a, **named: (reads.append(named["dtype"]), from_pretrained(*a, **named))[1]
    )
    monkeypatch.setattr(building, "Trainer", NoTrainer)
    parts = build(config, Corpus.open(config.data.shards), None)
    assert reads == [torch.float32], "once, for the student, the layer map and the teacher alike"
    assert {weight.dtype for weight in parts.trainer.teachers.members[0].module.parameters()} == {torch.bfloat16}
    trained = {f"{STUDENT}{name}": weight.detach() + 1 for name, weight in parts.trainer.student.named_parameters()}
    facts = {"student": parts.student, "layer_maps": layer_map.to_json(parts.layer_maps)}
    saved = Checkpoint(tmp_path, Progress(4, 0, 0, json.loads(json.dumps(facts))), {})
    states: list[FullState] = []
    monkeypatch.setattr(building, "load_state", lambda read: (states.append(FullState(trained, {})), states[-1])[1])
    reads.clear()
    monkeypatch.setattr(building, "make_student", lambda *_: pytest.fail("the student was made again"))
    monkeypatch.setattr(building, "sample_of_corpus", lambda *_: pytest.fail("the corpus was sampled again"))
    again = build(config, Corpus.open(config.data.shards), saved)
    assert reads == [torch.bfloat16], "the teacher alone, in its own precision"
    assert (len(states), again.trainer.loaded) == (1, 1)
    assert again.layer_maps == parts.layer_maps
    drops = [[type(module) for module in one.trainer.student.modules() if isinstance(module, torch.nn.Dropout)] for one in (parts, again)]
    assert set(drops[0]) == {Dropout}, "masks of a row"
    assert set(drops[1]) == {torch.nn.Dropout}, "a checkpoint of an earlier version names no dropout"
    assert (parts.facts["dropout"], again.facts["dropout"]) == ("by_row", "by_micro_batch")
    for name, weight in again.trainer.student.named_parameters():
        assert torch.equal(weight, trained[f"{STUDENT}{name}"]), name


@pytest.mark.parametrize("shrink", ["projection", "activation"])
def test_a_narrower_student_is_made_on_the_runs_own_text(make_config, shrink: str):
    narrower = ("student.width=24", "student.architecture=same", "objective=[{kind: soft_targets}]")
    config = make_config(f"student.shrink={shrink}", "student.sample_tokens=600", *narrower)
    teacher = load_mlm(config.teacher.model)
    student, again = (make_student(config.student, teacher, 1, sample_of(config, Corpus.open(config.data.shards))) for _ in range(2))
    assert (student.width, student.heads, student.layers) == (24, 4, 2)
    assert make_plan(config, world=1).student_parameters == sum(weight.numel() for weight in student.parameters())
    assert all(torch.equal(one, two) for one, two in zip(student.parameters(), again.parameters(), strict=True))


def test_a_sample_is_as_large_as_asked_and_begins_where_the_run_begins(corpus):
    stream = Stream(corpus.shards, "train", StreamSettings(window_tokens=32), 4)
    batches = sample_batches(stream, 500)
    real = sum(int(batch.real.sum()) for batch in batches)
    assert 500 <= real < 500 + 4 * 32
    assert batches[0].windows.tolist() == stream.slots(0)[0].tolist()
    assert sum(len(batch.windows) for batch in sample_batches(stream, 10**9)) >= stream.windows_per_epoch
