"""Micro-batches: copied, taught and handed out in order; teachers ahead give the same outputs, and two of them exist at most."""

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from terms_on_ranks import VOCABULARY, batches
from torch import Tensor

from kd.copies import CopyStream, moved
from kd.distributed.rank_progress import RankProgress
from kd.errors import KdError
from kd.models.encoder import Encoder
from kd.objective.objective import Objective
from kd.objective.selection import Selection
from kd.teacher.teacher import FrozenEncoder, ReplicatedTeacher
from kd.teacher.teachers import Teachers, fit_objective
from kd.terms import HiddenMSE, SoftTargets
from kd.training.micro_batches import MicroBatches
from tests.kd.conftest import MODELS

CPU, META = torch.device("cpu"), torch.device("meta")


class Watched(ReplicatedTeacher):
    """A teacher whose outputs are counted. alive: the outputs that exist when it has made one more."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(FrozenEncoder(encoder))
        self.made: list[weakref.ref[Tensor]] = []
        self.alive: list[int] = []

    def forward(self, batch, selected, requested):
        outputs = super().forward(batch, selected, requested)
        self.made.append(weakref.ref(outputs.last_hidden))
        gc.collect()
        self.alive.append(sum(one() is not None for one in self.made))
        return outputs


def made(ahead: bool, device: torch.device = CPU) -> tuple[MicroBatches, list[Selection], Objective, Watched]:
    teacher, student = Watched(Encoder(MODELS["bert"](layers=2)).to(device)), Encoder(MODELS["bert"](layers=2))
    teachers = Teachers([teacher])
    objective = fit_objective(Objective([SoftTargets(), HiddenMSE(layer_map="final")], 9), student.shape, teachers.shapes, "mean")
    selections = [Selection(batch, objective.on_logits, device) for batch in batches(0, 1, 0, 1)]
    return MicroBatches(teachers, VOCABULARY, device, ahead, RankProgress()), selections, objective, teacher


@pytest.mark.parametrize("ahead", [False, True])
def test_outputs_are_the_same_and_few_exist_at_a_time(ahead):
    micro_batches, selections, objective, teacher = made(ahead)
    handed, calls = [], []
    for selection, outputs in micro_batches.taught(0, selections, objective):
        calls.append(len(teacher.made))
        with torch.no_grad():
            whole = teacher.module(selection.batch, selection.logits, frozenset())
        assert torch.equal(outputs.outputs[0].last_hidden, whole.last_hidden)
        assert torch.equal(outputs.outputs[0].transformed, whole.transformed)
        handed.append(selection)
        del outputs, whole
    assert handed == selections
    assert calls == ([2, 3, 4, 4] if ahead else [1, 2, 3, 4])  # teachers' passes before the student's
    assert teacher.alive == ([1, 2, 2, 2] if ahead else [1, 1, 1, 1])


class Stream:
    """A stream of a GPU that writes down what is queued."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def record_event(self) -> str:
        self.log.append(f"{self.name}: event")
        return self.name

    def wait_event(self, event: str) -> None:
        self.log.append(f"{self.name}: wait for the event of {event}")

    def wait_stream(self, other: "Stream") -> None:
        self.log.append(f"{self.name}: wait for {other.name}")


@pytest.fixture
def queues(monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], list[Stream]]:
    """(what is queued, streams: the current one last)."""
    log: list[str] = []
    current = [Stream("student", log)]

    @contextmanager
    def within(stream: Stream) -> Iterator[None]:
        current.append(stream)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "stream", within)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: current[-1])
    monkeypatch.setattr(Tensor, "record_stream", lambda tensor, stream: log.append(f"{stream.name}: uses a copy"))
    return log, current


def test_each_stream_of_a_gpu_waits_for_what_it_reads(queues, monkeypatch):
    log, current = queues
    micro_batches, selections, objective, teacher = made(True, META)
    copies, teachers = Stream("copies", log), Stream("teachers", log)
    micro_batches._copies.stream, micro_batches._stream = copies, teachers
    forward = teacher.forward
    monkeypatch.setattr(teacher, "forward", lambda *inputs: (log.append(f"{current[-1].name}: teach"), forward(*inputs))[1])
    for _, outputs in micro_batches.taught(0, selections[:3], objective):
        log.append(f"{current[-1].name}: learn")
        del outputs
    uses = [line for line in log if line.endswith("uses a copy")]
    assert len(set(uses)) == 2
    assert uses.count("teachers: uses a copy") == uses.count("student: uses a copy") > 3 * 5  # ids, labels, …, positions
    begin = ["copies: event", "teachers: wait for the event of copies", "teachers: teach", "teachers: event"]
    learn = [
        "student: wait for the event of copies",
        "student: wait for the event of teachers",
        "student: learn",
        "teachers: wait for student",
    ]
    assert [line for line in log if line not in uses] == ["teachers: wait for student", *begin, *begin, *learn, *begin, *learn, *learn]


def test_copies_are_noted_only_while_they_are_made_on_their_stream(queues):
    log, _ = queues
    copies = CopyStream(META)
    with copies.copying() as made_at_once:
        moved(torch.zeros(3), META)
    made_at_once.arrive()
    assert (made_at_once.tensors, log) == ([], [])
    copies.stream = Stream("copies", log)
    with copies.copying() as beside:
        first = moved(torch.zeros(3), META)
        assert moved(first, META) is first
    moved(torch.zeros(3), META)
    assert [tensor is first for tensor in beside.tensors] == [True]
    beside.arrive()
    assert log == ["copies: event", "student: wait for the event of copies", "student: uses a copy"]


def test_a_teacher_that_is_split_over_ranks_cannot_be_ahead():
    teacher = ReplicatedTeacher(FrozenEncoder(Encoder(MODELS["bert"](layers=2))))
    teacher.whole = False
    with pytest.raises(KdError, match=r"^train\.teacher_stream: expected teachers of mode replicated or cached, got one split over ranks"):
        MicroBatches(Teachers([teacher]), VOCABULARY, CPU, True, RankProgress())
