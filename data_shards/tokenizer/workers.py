"""Text to ids in several processes. Imports nothing heavy, so that a worker starts in a tenth of a second.

A worker is `python -m data_shards.tokenizer.workers`, fed through its standard input. So no program with threads is forked, and the
caller's main module is not imported again. A worker whose parent was killed reads the end of its input and ends.
"""

import os
import queue
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from data_shards.errors import DataError
from stillhouse.errors import one_line
from stillhouse.files import ROOT

Ids = NDArray[Any]
Lengths = NDArray[np.uint32]
FAILED = 1  # in a frame's count: its content is an error message
FRAME = struct.Struct("<QQ")  # documents, bytes
PARENT_CHECK_SECONDS = 1.0


def encoder(tokenizer_json: str, dtype: str) -> Callable[[list[str]], tuple[Ids, Lengths]]:
    """A function: texts -> (the concatenated ids of all texts, the tokens of each as uint32)."""
    tokenizer = Tokenizer.from_str(tokenizer_json)
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def encode(texts: list[str]) -> tuple[Ids, Lengths]:
        encoded = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        lengths = np.fromiter(map(len, encoded), np.uint32, len(encoded))
        return np.fromiter(chain.from_iterable(encoded), np.dtype(dtype), int(lengths.sum(dtype=np.int64))), lengths

    return encode


class TokeniserPool:
    """`processes` workers; submit() takes encoded texts and gives a Future of (ids, lengths). A context: leaving it ends the workers."""

    def __init__(self, tokenizer_json: str, dtype: str, processes: int) -> None:
        self._dtype = np.dtype(dtype)
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(processes, thread_name_prefix="tokeniser")
        self._workers: list[subprocess.Popen[bytes]] = []
        try:
            for _ in range(processes):
                self._workers.append(_start(dtype))
            for worker in self._workers:
                _send(_pipe(worker.stdin), tokenizer_json.encode())
                self._idle.put(worker)
        except OSError as error:
            self.close()
            raise DataError(f"tokeniser: expected {processes} processes to start, got {error}; lower processes") from None

    def __enter__(self) -> "TokeniserPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, texts: list[bytes]) -> Future[tuple[Ids, Lengths]]:
        """The ids of UTF-8 texts, when a worker has them. The result raises DataError when the worker ended."""
        return self._threads.submit(self._encode, texts)

    def close(self) -> None:
        """End the workers, also busy ones."""
        for worker in self._workers:
            worker.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for worker in self._workers:
            worker.wait()
            for pipe in (worker.stdin, worker.stdout):
                with suppress(OSError):  # unflushed bytes have no reader any more
                    _pipe(pipe).close()

    def _encode(self, texts: list[bytes]) -> tuple[Ids, Lengths]:
        worker = self._idle.get()
        try:
            sizes = np.fromiter(map(len, texts), np.uint32, len(texts))
            _send(_pipe(worker.stdin), sizes.tobytes(), *texts, count=len(texts))
            lengths = np.frombuffer(_answer(_pipe(worker.stdout)), np.uint32)
            return np.frombuffer(_receive(_pipe(worker.stdout)), self._dtype), lengths
        except (OSError, EOFError, ValueError):
            raise DataError(
                f"tokeniser: expected an answer, got the end of process {worker.pid}; see its message above, or free memory"
            ) from None
        finally:
            self._idle.put(worker)


def _start(dtype: str) -> "subprocess.Popen[bytes]":
    room = str(ROOT)
    inherited = os.environ.get("PYTHONPATH")
    environment = {
        **os.environ,
        "PYTHONPATH": room + (os.pathsep + inherited if inherited else ""),
        "TOKENIZERS_PARALLELISM": "false",
        "RAYON_NUM_THREADS": "1",
    }
    command = [sys.executable, "-P", "-m", "data_shards.tokenizer.workers", dtype, str(os.getpid())]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)


def _pipe(pipe: Any) -> BinaryIO:
    return cast(BinaryIO, pipe)


def _send(pipe: BinaryIO, *parts: bytes, count: int = 0) -> None:
    pipe.write(FRAME.pack(count, sum(map(len, parts))) + b"".join(parts))
    pipe.flush()


def _receive(pipe: BinaryIO) -> bytes:
    _count, size = FRAME.unpack(_exactly(pipe, FRAME.size))
    return _exactly(pipe, size)


def _answer(pipe: BinaryIO) -> bytes:
    """The content of a worker's frame. Raises DataError for an error of the tokenizer."""
    count, size = FRAME.unpack(_exactly(pipe, FRAME.size))
    content = _exactly(pipe, size)
    if count == FAILED:
        message = content.decode()
        advice = "add an unknown token to its vocabulary" if "unk" in message.lower() else "choose another tokenizer"
        raise DataError(f"tokenizer: expected ids for every text, got: {message}; {advice}")
    return content


def _exactly(pipe: BinaryIO, size: int) -> bytes:
    content = pipe.read(size)
    if len(content) != size:
        raise EOFError
    return content


def _follow(parent: int) -> None:
    """End this process when its parent is gone, even if another process still holds the pipe."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_SECONDS)
    os._exit(1)


def serve(dtype: str, parent: int) -> None:
    """Run a worker: read the tokenizer, then answer texts until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    source, target = sys.stdin.buffer, sys.stdout.buffer
    try:
        encode = encoder(_receive(source).decode(), dtype)
        while True:
            count, size = FRAME.unpack(_exactly(source, FRAME.size))
            content = memoryview(_exactly(source, size))
            ends = 4 * count + np.cumsum(np.frombuffer(content[: 4 * count], np.uint32), dtype=np.int64)
            begins = [4 * count, *ends[:-1].tolist()]
            try:
                ids, lengths = encode([str(content[a:b], "utf-8") for a, b in zip(begins, ends.tolist(), strict=True)])
            except Exception as error:  # the tokenizers library raises plain Exception
                _send(target, one_line(error).encode(), count=FAILED)
                continue
            _send(target, lengths.tobytes())
            _send(target, ids.tobytes())
    except (EOFError, BrokenPipeError):
        os._exit(0)  # the parent has closed the pipe


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
