"""Detects dead, hanging and slow ranks. Each rank reports its progress to the others; all exit with one message if one is lost.

1. A thread posts this rank's progress to the store (the one that the ranks met at) once a second, and reads which rank has left.
2. A second thread looks at clocks alone and never waits for a network. If this rank hangs for train.timeout_seconds in a collective, or
   the store no longer answers, the thread finds the reason and ends the process.
3. `watching` turns the errors that may end a run into one line a rank: a lost rank, memory that ran out. The message of the first rank
   that leaves is the reason that the others print.

Clocks of different hosts are never compared. A rank is alive if it has sent a new number, and it reports itself how long it has waited.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from kd.distributed import process_group
from kd.distributed.rank_progress import BUILDING, WRITING, ProgressPoint, RankProgress
from launcher.errors import OutOfMemory, RankLost, SharedError
from launcher.process.failures import is_lost_connection, memory_asked_for
from launcher.process.standard_streams import say
from launcher.redaction import redacted
from stillhouse.errors import StillhouseError

BEAT_SECONDS = 1.0
SILENT_BEATS = 4  # a rank that posts nothing for this many beats is lost, or its network is down
SLOW_TIMES = 10  # building the models, and writing by rank 0, may take this many times train.timeout_seconds
GRACE_SECONDS = 10.0  # for the training thread to report the error itself
AGAIN = "start again to go on from the last checkpoint"
LEFT = "left"
T = TypeVar("T")


@dataclass(frozen=True)
class Post:
    """The last message of a rank to the others. beat: a number that grows; host and pid: of its process."""

    rank: int
    host: str
    pid: int
    beat: int
    point: ProgressPoint

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.host} (pid {self.pid})"


class Watch:
    """The two threads of one rank, from the meeting of the ranks to the end of the run."""

    def __init__(self, progress: RankProgress, timeout_seconds: float, say: Callable[[str], None]) -> None:
        """say: prints a line to the user from another thread than the training one."""
        self.rank, self.world = process_group.rank(), process_group.world_size()
        self.progress = progress
        self.timeout_seconds = timeout_seconds
        self._say = say
        self._boards = [process_group.board(timeout_seconds) for _ in range(2)]  # to post, and to ask why
        self._heard = time.monotonic()
        """When the board last answered."""
        self._left: str | None = None
        """The reason of the first rank that left, once it is known."""
        self._ended = threading.Event()
        self._last_word = threading.Lock()
        for work in (self._exchange, self._judge):
            threading.Thread(target=work, name=f"watch{work.__name__}", daemon=True).start()

    def close(self) -> None:
        """End the watch: the run is over, or the training thread reports its end. Does not return if _judge is reporting it already."""
        with self._last_word:
            self._ended.set()

    def leave(self, reason: str) -> None:
        """Tell the other ranks why this rank leaves. They name the first rank that left."""
        message = f"rank {self.rank} on {socket.gethostname()} left: {reason.splitlines()[0] if reason else 'no reason'}"
        board = self._boards[1]
        _within(2 * BEAT_SECONDS, lambda: board.compare_set(LEFT, "", message))  # type: ignore[union-attr]
        if self.rank == 0:  # the board ends with this process: let them read it
            time.sleep(2 * BEAT_SECONDS)

    def why(self) -> str:
        """The lost rank and its last phase, as a message. Takes some seconds, to learn which ranks still post."""
        for _ in range(3):
            if self._left is not None:
                return self._left
            time.sleep(BEAT_SECONDS / 2)
        posts = self._look()
        return self._left or self._loss(*posts)

    def _look(self) -> tuple[list[Post], list[Post]]:
        """Every rank's post, now and after the time in which each live rank posts again."""
        before = self._posts()
        time.sleep(SILENT_BEATS * BEAT_SECONDS)
        return before, self._posts()

    def _loss(self, before: list[Post], after: list[Post]) -> str:
        """The message about the lost rank that two readings of the store show."""
        if not after:
            return f"lost rank 0, where the ranks meet: no answer; its process or host has died, or the network is cut; {AGAIN}"
        silent = [post for post in after if post.beat == {was.rank: was.beat for was in before}.get(post.rank)]
        known = {post.rank for post in after}
        for absent in sorted(set(range(self.world)) - known):
            return f"lost rank {absent}: it has never been heard of; see whether it started, and whether it can reach rank 0; {AGAIN}"
        if silent:
            names = ", ".join(f"{post}, last heard of in {post.point}" for post in silent[:4])
            more = f" and {len(silent) - 4} more" if len(silent) > 4 else ""
            since = f"no sign of life for {SILENT_BEATS * BEAT_SECONDS:.0f} s"
            return f"lost {names}{more}: {since}; killed, stopped, or its host or network is down; {AGAIN}"
        last = min(after, key=lambda post: (post.point.update, post.point.step))
        ahead = [post for post in after if (post.point.update, post.point.step) > (last.point.update, last.point.step)]
        if ahead:
            return f"{last} hangs: in {last.point} for {last.point.seconds:.0f} s, while the other ranks wait for it; {AGAIN}"
        return f"all {self.world} ranks wait for each other in {last.point}; see whether the network between their hosts is cut; {AGAIN}"

    def _posts(self) -> list[Post]:
        """Every rank's last post; empty if the store does not answer."""
        board = self._boards[1]
        assert board is not None

        def read() -> list[Post]:
            names = [name for name in (f"post/{rank}" for rank in range(self.world)) if board.check([name])]
            return [_post(rank_post) for rank_post in (board.multi_get(names) if names else [])]

        return _within(SILENT_BEATS * BEAT_SECONDS, read) or []

    def _exchange(self) -> None:
        """Post and read, as long as the store answers."""
        board = self._boards[0]
        assert board is not None
        host, pid, beat = socket.gethostname(), os.getpid(), 0
        try:
            while not self._ended.wait(BEAT_SECONDS if beat else 0):
                beat += 1
                point = self.progress.now
                post = {"rank": self.rank, "host": host, "pid": pid, "beat": beat, "point": vars(point)}
                board.set(f"post/{self.rank}", json.dumps(post))
                if self._left is None and board.check([LEFT]):
                    self._left = board.get(LEFT).decode()
                self._heard = time.monotonic()
        except RuntimeError:  # the board is gone: _judge sees that nothing is heard any more
            pass

    def _judge(self) -> None:
        """End the process when a rank is lost."""
        left_since: float | None = None
        looked = time.monotonic()
        while not self._ended.wait(BEAT_SECONDS):
            now = time.monotonic()
            if now - looked > SILENT_BEATS * BEAT_SECONDS:  # this very process was stopped meanwhile: its clocks mean nothing
                self.progress.touch()
                self._heard = now
            looked = now
            if self._left is not None:
                left_since = left_since or now
                if now - left_since > GRACE_SECONDS:
                    self._end(self._left)
            elif now - self._heard > self.timeout_seconds:
                self._end(
                    f"lost rank 0, where the ranks meet: not heard of for {now - self._heard:.0f} s; see its host and the network; {AGAIN}"
                )
            elif now - self._heard < SILENT_BEATS * BEAT_SECONDS and self._stands_still(self.rank, self.progress.now):
                posts = self._look()
                if not self._somebody_moves(*posts) and self._stands_still(self.rank, self.progress.now):  # nothing came meanwhile
                    self._end(self._left or self._loss(*posts))
                looked = time.monotonic()

    def _stands_still(self, rank: int, point: ProgressPoint) -> bool:
        """True if a rank has been in its phase for longer than is allowed."""
        slow = point.phase == BUILDING or (rank == 0 and point.phase == WRITING)
        return point.seconds > (SLOW_TIMES if slow else 1) * self.timeout_seconds

    def _somebody_moves(self, before: list[Post], after: list[Post]) -> bool:
        """True if a rank that this one may be waiting for is slow, but neither silent nor hanging."""
        own_point = self.progress.now
        beats = {post.rank: post.beat for post in before}
        for post in after:
            behind = (post.point.update, post.point.step) <= (own_point.update, own_point.step)
            heard = post.beat > beats.get(post.rank, 0)
            if post.rank != self.rank and behind and heard and not self._stands_still(post.rank, post.point):
                return True
        return False

    def _end(self, reason: str) -> None:
        """End the process at once: the training thread is inside a call that does not return."""
        with self._last_word:
            if not self._ended.is_set():
                self._say(reason)
                if self.rank == 0:  # the board ends with this process: let the others find out the same
                    time.sleep(2 * BEAT_SECONDS)
                os._exit(RankLost.exit_code)


@contextmanager
def watching(progress: RankProgress, timeout_seconds: float, say: Callable[[str], None]) -> Iterator[None]:
    """Inside, the ranks watch each other. An error that ends the run there is raised as the line to print (LaunchError)."""
    watch = Watch(progress, timeout_seconds, say) if process_group.world_size() > 1 else None
    process_group.wait_for_ever()  # in a collective: who is lost is decided here
    try:
        yield
    except BaseException as error:
        reported = _translated(error, progress.now, watch)
        if watch is not None:
            watch.close()
            if not isinstance(reported, RankLost | SharedError):
                watch.leave(str(reported) or type(reported).__name__)
        if reported is error:
            raise
        raise reported from (None if isinstance(reported, RankLost) else error)
    finally:
        if watch is not None:
            watch.close()


def _translated(error: BaseException, point: ProgressPoint, watch: Watch | None) -> BaseException:
    """The error whose message is the line to print. A bug is returned unchanged."""
    if isinstance(error, StillhouseError):
        return error
    allocation = memory_asked_for(error)
    if allocation is not None:
        return OutOfMemory(
            f"expected memory for {point}, got none: {allocation} asked for; lower train.micro_batch (the result stays), "
            "train.chunk_tokens or data.window_tokens, raise train.zero_stage, or set train.activation_checkpointing=true"
        )
    if watch is not None and is_lost_connection(error):
        return RankLost(watch.why())
    return error


def say_aloud(text: str) -> None:
    """Print a line to stderr, with the rank and its host."""
    say(f"stillhouse: rank {process_group.rank()} on {socket.gethostname()}: {redacted(text)}", sys.stderr)


def _post(data: bytes) -> Post:
    values: dict[str, Any] = json.loads(data)
    return Post(**values | {"point": ProgressPoint(**values["point"])})


def _within(seconds: float, call: Callable[[], T]) -> T | None:
    """The result of a call that may wait for a network without limit; None if it fails or takes longer."""
    result: list[T] = []

    def work() -> None:
        with suppress(RuntimeError):
            result.append(call())

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    return result[0] if result else None
