"""The models that `stillhouse latency` measures: each in the forms that its folder can run in."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from kd.export.extra import onnx_module
from kd.export.runtime import AnySession, Session, TorchSession
from launcher.deployment.folder import MODEL, is_exported, read_exported
from launcher.deployment.models import open_model
from stillhouse.files import sha256_of_file

WEIGHT_FILES = ("*.safetensors", "*.onnx", "*.onnx.data", "*.bin")
FORMS = {"torch fp32": torch.float32, "torch bf16": torch.bfloat16}


@dataclass(frozen=True)
class Quality:
    """A model's metric on the data of its task, as its export or its run measured it."""

    metric: str
    value: float
    data: str


@dataclass(frozen=True)
class Candidate:
    """A model in one form. letter: its name in tables. bytes: of the weights on disk; None where the folder is on a hub.

    files: sha256 of each file of weights by its name.
    """

    letter: str
    model: str
    form: str
    vocabulary: int
    max_tokens: int
    bytes: int | None
    files: dict[str, str] = field(default_factory=dict)
    quality: Quality | None = None

    def session(self, threads: int) -> AnySession:
        """The model, ready to run with that many threads."""
        if self.form.startswith("onnx"):
            return Session(Path(self.model) / MODEL, threads)
        return TorchSession(open_model(self.model, FORMS[self.form]).exported)

    @property
    def name(self) -> str:
        """Letter and form."""
        return f"{self.letter} {self.form}"

    @property
    def record(self) -> dict[str, Any]:
        """Everything but the shapes, for JSON."""
        values = asdict(self)
        return {key: values[key] for key in ("letter", "model", "form", "bytes", "files", "quality")}


def candidates_of(models: list[str]) -> list[Candidate]:
    """Each model in each of its forms: torch in fp32 and bf16, or the precision of its ONNX file.

    Raises KdError without onnxruntime where a model needs it, LaunchError for an exported folder that was changed.
    """
    made: list[Candidate] = []
    for model in models:
        made += _forms(model, len(made))
    return made


def letters(number: int) -> str:
    """0 -> A, 25 -> Z, 26 -> AA."""
    return (letters(number // 26 - 1) if number >= 26 else "") + chr(ord("A") + number % 26)


def _forms(model: str, number: int) -> list[Candidate]:
    if is_exported(model):
        record = read_exported(model).record
        if record["model_format"] == "onnx":
            onnx_module("onnxruntime")
            form, shape = f"onnx {record['precision']}", (int(record["vocabulary"]), int(record["max_tokens"]))
            return [Candidate(letters(number), model, form, *shape, *_weights(model), _exported_quality(record))]
    encoder = open_model(model).encoder
    weights, shape = _weights(model), (encoder.vocabulary, encoder.max_positions)
    qualities = {"torch fp32": _run_quality(Path(model))}
    return [Candidate(letters(number + place), model, form, *shape, *weights, qualities.get(form)) for place, form in enumerate(FORMS)]


def _weights(model: str) -> tuple[int | None, dict[str, str]]:
    folder = Path(model).expanduser()
    files = [file for pattern in WEIGHT_FILES for file in sorted(folder.glob(pattern))] if folder.is_dir() else []
    return (sum(file.stat().st_size for file in files) if files else None), {file.name: sha256_of_file(file) for file in files}


def _exported_quality(record: dict[str, Any]) -> Quality | None:
    quality = record.get("quality")
    return None if not quality else Quality(quality["metric"], float(quality["exported"]), quality["data"])


def _run_quality(folder: Path) -> Quality | None:
    """The metric that the run of RUN/student measured on dev; None for another folder, or where the weights were changed since."""
    try:
        report = json.loads((folder.parent / "report.json").read_text(encoding="utf-8"))
        metric, scores, digests = report["task"]["metric"], report["dev"], report["files"]
        if any(sha256_of_file(folder / name) != digest for name, digest in digests.items() if name.endswith(".safetensors")):
            return None
        return Quality(metric, float(scores[metric]), f"{scores['rows']} rows of dev")
    except (OSError, ValueError, KeyError, TypeError):
        return None
