"""The micro-batches of an update, one after the other, each with its teachers' outputs.

On a GPU the host only queues work. Copies have a stream of their own, and the teachers have one where `train.teacher_stream` is set. A
stream waits for another by an event, so the host does not.

    copies     copy 0 | copy 1 | ...
    teachers     teach 0 | teach 1          | teach 2 (after student 0) | ...
    student              | student 0        | student 1                 | ...

The memory of a teacher's outputs belongs to the teachers' stream. That stream waits for student n before the outputs of n are freed, so
at most two micro-batches of outputs exist.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext

import torch

from kd.copies import Copies, CopyStream
from kd.distributed.rank_progress import RankProgress
from kd.errors import KdError
from kd.objective.objective import Objective
from kd.objective.selection import Selection
from kd.objective.teacher_outputs import TeacherOutputs
from kd.teacher.teachers import Teachers

Taught = tuple[Selection, TeacherOutputs]


class MicroBatches:
    """Copies to the device and teachers' outputs of micro-batches. ahead: teach the next one before the student learns from this one."""

    def __init__(self, teachers: Teachers, vocabulary: int, device: torch.device, ahead: bool, progress: RankProgress) -> None:
        """Raises KdError for `ahead` with a teacher that is split over ranks: its collectives and the student's need one order."""
        if ahead and not all(member.whole for member in teachers.members):
            raise KdError("train.teacher_stream: expected teachers of mode replicated or cached, got one split over ranks; set it to false")
        self.teachers, self.vocabulary, self.progress = teachers, vocabulary, progress
        self.ahead = ahead
        self._copies = CopyStream(device)
        self._stream = torch.cuda.Stream(device) if ahead and device.type == "cuda" else None

    def taught(self, update: int, selections: Sequence[Selection], objective: Objective) -> Iterator[Taught]:
        """Each selection with the outputs of its teachers, which are valid until the next one. Collective.

        The caller deletes its reference to the outputs before it asks for the next ones.
        """
        if not self.ahead:
            for selection in selections:
                self._copied(selection, objective).arrive()
                with self.teachers.teach(update, selection, objective, self.vocabulary) as outputs:
                    yield selection, outputs
                del outputs
            return
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream())
        waiting = [self._begin(update, selections[0], objective)]
        for following in [*selections[1:], None]:
            if following is not None:
                waiting.append(self._begin(update, following, objective))
            yield from waiting.pop(0)()

    def _copied(self, selection: Selection, objective: Objective) -> Copies:
        self.progress.enter("teacher")
        with self._copies.copying() as copies:
            selection.prepare(objective.terms)
        return copies

    def _begin(self, update: int, selection: Selection, objective: Objective) -> Callable[[], Iterator[Taught]]:
        """Queue the teachers' work on a micro-batch. The result hands it out, once, and frees its outputs."""
        copies = self._copied(selection, objective)
        context = ExitStack()
        with torch.cuda.stream(self._stream) if self._stream is not None else nullcontext():
            copies.arrive()
            outputs = context.enter_context(self.teachers.teach(update, selection, objective, self.vocabulary))
            done = self._stream.record_event() if self._stream is not None else None

        def hand_out() -> Iterator[Taught]:
            nonlocal outputs
            copies.arrive()
            if done is not None:
                torch.cuda.current_stream().wait_event(done)
            with context:
                yield selection, outputs
            if self._stream is not None:
                self._stream.wait_stream(torch.cuda.current_stream())
            del outputs

        return hand_out
