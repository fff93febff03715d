"""A tiny classifier with its task, for tests of exports."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from transformers import AutoConfig, AutoTokenizer

from kd.models.config import quiet_transformers
from kd.tasks.model import MODEL_CLASSES, set_labels


@pytest.fixture(scope="module")
def classifier_task(corpus, tmp_path_factory) -> tuple[Path, Path]:
    """A classifier with random weights, and the YAML of its task."""
    folder = tmp_path_factory.mktemp("task")
    for split in ("train", "dev"):
        rows = [{"text": text[:150], "label": "long" if len(text) > 200 else "short"} for text in corpus.texts[:60]]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = AutoConfig.from_pretrained(corpus.model)
    set_labels(config, "classification", ["long", "short"])
    with quiet_transformers():
        MODEL_CLASSES["classification"].from_config(config).save_pretrained(folder / "model")
        AutoTokenizer.from_pretrained(corpus.model).save_pretrained(folder / "model")
    data = {"kind": "classification", "train": str(folder / "train.jsonl"), "dev": str(folder / "dev.jsonl"), "max_length": 40}
    content = {"run": {"folder": "x"}, "data": data, "train": {"global_batch": 8, "micro_batch": 8, "epochs": 1}}
    (folder / "task.yaml").write_text(yaml.safe_dump(content))
    return folder / "model", folder / "task.yaml"


BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "transformers", "onnx", "safetensors", "kd", "launcher", "data_shards", "stillhouse"}:
            raise ImportError(f"{name} is not installed here")
sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture(scope="session")
def run_readme() -> Callable[[Path], str]:
    """run_readme(folder): the output of the README's five lines, without torch, transformers, onnx and Stillhouse."""

    def run(folder: Path) -> str:
        found = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)
        assert found is not None
        assert found[1].count("\n") == 5
        done = subprocess.run([sys.executable, "-c", BLOCKER + found[1]], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run
