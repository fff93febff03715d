"""How long training stands still for a checkpoint, written at once and beside it; JSON on standard output.

Usage: bench_checkpoint.py [MILLION_PARAMETERS] [FOLDER]
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import torch

from kd.checkpoint import checkpoint, on_disk
from kd.checkpoint.background_writer import BackgroundWriter
from kd.checkpoint.on_disk import Progress

ROUNDS = 3


def main() -> None:
    millions = float(sys.argv[1]) if len(sys.argv) > 1 else 17.0
    root = sys.argv[2] if len(sys.argv) > 2 else None
    rows = int(millions * 1e6 / 16 / 1024)
    state = [(f"layer{n}", torch.randn(rows, 1024), {key: torch.randn(rows, 1024) for key in ("exp_avg", "exp_avg_sq")}) for n in range(16)]
    size = 12 * sum(weight.numel() for _, weight, _ in state)
    at_once, pauses, beside = [], [], []
    with tempfile.TemporaryDirectory(dir=root) as folder:
        for number in range(ROUNDS):
            began = time.perf_counter()
            checkpoint.write(Path(folder), Progress(2 * number, 0, 0, {}), state)
            at_once.append(time.perf_counter() - began)
            writer = BackgroundWriter()
            began = time.perf_counter()
            writer.write(Path(folder), Progress(2 * number + 1, 0, 0, {}), state)
            pauses.append(time.perf_counter() - began)
            written = writer.take(wait=True)
            assert written is not None
            assert not written.error, written.error
            beside.append(written.seconds)
            on_disk.prune(Path(folder), keep_last=1, keep_best=0)
    median = {name: sorted(values)[ROUNDS // 2] for name, values in (("at_once", at_once), ("pause", pauses), ("beside", beside))}
    facts = {"parameters": size // 12, "bytes": size, "rounds": ROUNDS}
    seconds = {"pause_at_once": median["at_once"], "pause_beside": median["pause"], "until_it_is_safe": median["beside"]}
    print(json.dumps(facts | {name: round(value, 3) for name, value in seconds.items()}))


if __name__ == "__main__":
    main()
