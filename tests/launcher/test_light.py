"""What only needs the YAML, or finds a mistake in it, imports neither torch nor DeepSpeed nor transformers and ends within a second."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kd.checkpoint import checkpoint
from kd.checkpoint.on_disk import Progress
from launcher.config.load import dump_config

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "deepspeed", "transformers", "datasets", "wandb", "matplotlib")
CALL = f"""
import json, sys
from launcher import cli
sys.argv = ["stillhouse", *sys.argv[1:]]
try:
    cli.main()
except SystemExit as end:
    code = end.code or 0
print(json.dumps([code, sorted(name for name in {HEAVY!r} if name in sys.modules)]), file=sys.stderr)
"""


def called(*words: str) -> tuple[int, list[str], str, float]:
    """(exit code, heavy packages that were imported, everything printed, seconds of the processor) of `stillhouse words`."""
    before = os.times()
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    done = subprocess.run([sys.executable, "-c", CALL, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    after = os.times()
    *said, last = done.stderr.splitlines()
    code, imported = json.loads(last)
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    return code, imported, done.stdout + "\n".join(said), seconds


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("train --config no-such-preset", "no-such-preset: expected a configuration file, got none there"),
        ("train --config tiny train.updatse=3", "command line: train.updatse: unknown key; did you mean updates?"),
        ("train --config tiny data.shards=/nowhere/x", "/nowhere/x: expected a folder of shards, got no folder; build it"),
        ("train --config tiny train.global_batch=7", "train: expected global_batch to be a multiple of micro_batch, got 7 and 2"),
        ("cache --config tiny train.updatse=3", "command line: train.updatse: unknown key; did you mean updates?"),
        ("layers --config tiny data.shards=/nowhere/x", "/nowhere/x: expected a folder of shards"),
        ("compare no-such-comparison", "no-such-comparison: expected a configuration file, got none there"),
        ("compare layers train.updatse=3", "layers: settings: train.updatse: unknown key; did you mean updates?"),
        ("compare layers data.shards=/nowhere/x", "layers: variants.every other: /nowhere/x: expected a folder of shards"),
        ("compare layers layers", "stillhouse compare: expected files of different names, got two of the same"),
        ("chain no-such-chain", "no-such-chain: expected a configuration file, got none there"),
        ("chain assistants data.shards=/nowhere/x", "/nowhere/x: expected a folder of shards"),
    ],
)
def test_a_mistake_in_the_configuration_is_found_within_a_second(words: str, line: str):
    code, imported, said, seconds = called(*words.split())
    assert (code, imported) == (2, [])
    assert line in said
    assert said.count("\n") == 0
    assert seconds < 1.5, "a second of a quiet machine"


def test_a_model_folder_that_is_missing_is_found_without_torch(corpus):
    code, imported, said, _ = called("train", "--config", "tiny", f"data.shards={corpus.shards}", "teacher.model=/nowhere/m")
    assert (code, imported) == (2, [])
    assert said == "stillhouse: /nowhere/m: expected a model folder, got nothing there; check the path"


def test_help_and_a_look_at_a_run_import_nothing_heavy(make_config, corpus):
    assert called("--help")[:2] == (0, [])
    config = make_config()
    folder = Path(config.run.folder)
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(dump_config(config))
    (folder / "metrics.jsonl").write_text(json.dumps({"kind": "train", "update": 1, "updates": 2, "loss": 1.0}) + "\n")
    checkpoint.write(folder / "checkpoints", Progress(1, 0, 0, {"cursor": {}}), [])
    code, imported, said, _ = called("doctor", str(folder))
    assert imported == []
    assert "update-00000001" in said
    assert code == 1


def test_a_replay_without_wandb_imports_nothing_else_that_is_heavy(make_config, tmp_path: Path):
    (tmp_path / "config.yaml").write_text(dump_config(make_config()))
    code, imported, said, _ = called("wandb-replay", str(tmp_path))
    assert (code, imported) == (2, [])
    assert "metrics.jsonl" in said
