"""One rank of `stillhouse bench --ranks`: a few updates of a run, with their times, then a few more with the times of collectives.

Usage: python -m launcher.benchmarks.scaling.one_rank CONFIG.json UPDATES RESULT    (the answer is RESULT.RANK)
"""

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data_shards.corpus import Corpus
from kd.distributed import process_group
from kd.distributed.rank_progress import RankProgress
from kd.models.config import quiet_transformers
from launcher.benchmarks.scaling.collectives import Watch, synchronise
from launcher.config.run_config import RunConfig
from launcher.training.batches import BatchLoader
from launcher.training.build import build
from stillhouse.errors import StillhouseError
from stillhouse.files import write_atomically

WARM = 2


def main(config: RunConfig, updates: int) -> dict[str, Any]:
    """Measure on this rank. Collective."""
    progress = RankProgress()
    watch = Watch(progress)
    with watch.installed(), quiet_transformers():
        process_group.start(config.train.timeout_seconds)
        corpus = Corpus.open(config.data.shards, config.data.cache_folder)
        parts = build(config, corpus, None, progress)
        place = {"rank": process_group.rank(), "world": process_group.world_size(), "update": 0, "windows": 0}
        loader = BatchLoader(parts.stream, config.train, **place, to_batch=parts.to_batch)
        walls, cpus, tokens = [], [], 0
        try:
            for number in range(WARM + 2 * updates):
                batches = loader.next_update()
                watch.on = number >= WARM + updates
                progress.begin(number + 1, "counting")
                process_group.barrier()
                synchronise()
                wall, cpu = time.perf_counter(), time.process_time()
                report = parts.trainer.update(batches)
                synchronise()
                if WARM <= number < WARM + updates:
                    walls.append(time.perf_counter() - wall)
                    cpus.append(time.process_time() - cpu)
                    tokens += report.tokens
        finally:
            loader.close()
    calls = [asdict(call) for call in watch.calls if call.name != "barrier"]
    return {"wall": walls, "cpu": cpus, "tokens": tokens, "precision": parts.precision, "calls": calls}


if __name__ == "__main__":
    run = RunConfig.model_validate(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    try:
        answer = main(run, int(sys.argv[2]))
    except StillhouseError as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(error.exit_code)  # the other ranks end with this one
    write_atomically(Path(f"{sys.argv[3]}.{process_group.rank()}"), json.dumps(answer))
    sys.stdout.flush()
    process_group.barrier()
    os._exit(0)
