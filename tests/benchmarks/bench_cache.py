"""What a cached teacher saves: the same runs with `teacher.mode` replicated and cached, in turn, by the commands a user gives.

    python tests/benchmarks/bench_cache.py      (about two minutes; prints JSON)

Models and corpus are bench_train's: a 6 x 384 teacher, a 3 x 384 student, windows of 128 tokens. Once with soft targets on masked
positions, MLM and cosine (states of all positions are kept), once with masked positions alone.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parent))
from bench_train import ROOT, prepare  # its neighbour

OBJECTIVES = {
    "all positions": [{"kind": "soft_targets", "weight": 5, "positions": "masked"}, {"kind": "mlm", "weight": 2}, {"kind": "cosine"}],
    "masked positions": [{"kind": "soft_targets", "weight": 5, "positions": "masked"}, {"kind": "mlm", "weight": 2}],
}


def stillhouse(*words: str) -> None:
    """One verb, quietly; its own words if it fails."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", "launcher.cli", *words], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def rate(run: Path) -> tuple[float, float]:
    """(tokens per second of learning without the first updates, peak memory in GB)."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["kind"] == "train"][1:]
    return statistics.median(line["tokens_per_second"] for line in train), max(line["memory_gb"] for line in train)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    results: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        for what, objective in OBJECTIVES.items():
            settings = {
                "run": {"folder": str(folder / "run")},
                "data": {"shards": str(folder / "shards")},
                "student": {"layers": [1, 3, 5], "dropout": 0.0},
                "teacher": {"model": str(folder / "teacher")},
                "objective": objective,
                "train": {"global_batch": 32, "micro_batch": 16, "updates": arguments.updates},
                "checkpoint": {"every_updates": None, "every_minutes": None},
                "evaluate": {"every_updates": None},
                "report": {"every_updates": 4},
            }
            config = folder / f"{what.split()[0]}.yaml"
            config.write_text(yaml.safe_dump(settings))
            cached = ["teacher.mode=cached", f"teacher.cache={folder / config.stem}"]
            started = time.perf_counter()
            stillhouse("cache", "--config", str(config), *cached)
            filling = time.perf_counter() - started
            header = json.loads((folder / config.stem / "cache.json").read_text())
            bytes_ = sum(file["bytes"] for file in header["files"].values())
            rates: dict[str, list[tuple[float, float]]] = {"replicated": [], "cached": []}
            for number in range(arguments.rounds):
                for mode, more in (("replicated", []), ("cached", cached)):
                    run = folder / f"{config.stem}-{mode}-{number}"
                    stillhouse("train", "--config", str(config), f"run.folder={run}", *more)
                    rates[mode].append(rate(run))
            pairs = [with_cache[0] / without[0] for with_cache, without in zip(rates["cached"], rates["replicated"], strict=True)]
            results[what] = {
                "cached / replicated, tokens per second": round(statistics.median(pairs), 2),
                "rounds": [round(pair, 2) for pair in pairs],
                "cached / replicated, peak memory": round(
                    statistics.median(one[1] for one in rates["cached"]) / statistics.median(one[1] for one in rates["replicated"]), 2
                ),
                "tokens per second": {mode: round(statistics.median(one[0] for one in values)) for mode, values in rates.items()},
                "bytes a window of 128": round(bytes_ / (arguments.updates * 32)),
                "seconds of filling, start included": round(filling, 1),
            }
            print(json.dumps({what: results[what]}, indent=1), flush=True)


if __name__ == "__main__":
    main()
