"""Every preset at the demo's scale, on a small teacher and corpus: some updates in this one process, as one JSON.

Usage: presets_in_small.py RESULT.json SHARDS TEACHER PRESET …
"""

import json
import sys
from pathlib import Path

from data_shards.corpus import Corpus
from kd.distributed import process_group
from launcher.config.load import load_config
from launcher.training.batches import BatchLoader
from launcher.training.build import build

UPDATES = 8
SMALL = ["data.window_tokens=32", "train.global_batch=4", "train.micro_batch=4", "train.precision=fp32", f"train.updates={UPDATES}"]
NARROW = {"tinybert": 24, "minilm": 24, "minilmv2": 24, "fitnets": 24}
OTHERS = {
    "mobilebert": ["student.inner=32", *(f"phases.{number}.updates=1" for number in range(6))],
    "minilmv2": ["objective.0.heads=12"],  # of width 2 each, where the preset has them of width 4
}


def settings(name: str, shards: str, teacher: str) -> list[str]:
    """key=value words for a preset on a teacher of 6 layers of width 48."""
    width = [f"student.width={NARROW[name]}"] if name in NARROW else []
    return [*SMALL, f"data.shards={shards}", f"teacher.model={teacher}", *width, *OTHERS.get(name, [])]


def main() -> None:
    result, shards, teacher, *presets = sys.argv[1:]
    process_group.start()
    report = {}
    for name in presets:
        config = load_config(name, settings(name, shards, teacher), "demo")
        parts = build(config, Corpus.open(config.data.shards), None)
        loader = BatchLoader(parts.stream, config.train, rank=0, world=1, update=0, windows=0)
        lines = [parts.trainer.update(loader.next_update()) for _ in range(UPDATES)]
        loader.close()
        student = parts.trainer.snapshot()
        report[name] = {
            "losses": [line.loss for line in lines],
            "phases": [line.phase for line in lines],
            "terms": [list(line.terms) for line in lines],
            "applied": all(line.applied for line in lines),
            "student": [student.layers, student.width, student.heads],
        }
    Path(result).write_text(json.dumps(report))
    process_group.stop()


if __name__ == "__main__":
    main()
