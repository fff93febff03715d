"""A tiny classifier with its task, for tests of exports."""

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from safetensors.torch import save
from transformers import AutoConfig, AutoTokenizer

from kd.export.onnx_graph import OPSET, Exported, export_graph
from kd.export.onnx_model import OnnxModel
from kd.models.config import quiet_transformers
from kd.tasks.model import MODEL_CLASSES, set_labels
from launcher.deployment.conversion import graph


@pytest.fixture(scope="package", autouse=True)
def each_graph_once() -> Iterator[None]:
    """`stillhouse export` traces a model once, and takes a copy of that graph when a test exports the same weights again.

    Tracing takes three seconds, the rest of an export less than one. Every export still compares its graph with torch.
    """
    made: dict[str, OnnxModel] = {}

    def copy_of(exported: Exported, opset: int = OPSET) -> OnnxModel:
        model = exported.hf
        settings = {**model.config.to_dict(), "_name_or_path": ""}
        weights = {name: value.detach().clone().contiguous() for name, value in model.state_dict().items()}
        described = json.dumps([type(model).__name__, exported.output, opset, settings], sort_keys=True, default=str)
        key = hashlib.sha256(described.encode() + save(weights)).hexdigest()
        if key not in made:
            made[key] = _copied(export_graph(exported, opset))
        return _copied(made[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "export_graph", copy_of)
        yield


def _copied(model: OnnxModel) -> OnnxModel:
    proto = type(model.proto)()
    proto.CopyFrom(model.proto)
    return OnnxModel(proto, {name: array.copy() for name, array in model.weights.items()})


@pytest.fixture(scope="session")
def classifier_task(corpus, tmp_path_factory) -> tuple[Path, Path]:
    """A classifier with random weights, and the YAML of its task, which no test may change."""
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
