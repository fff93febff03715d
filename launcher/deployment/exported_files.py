"""The files of an exported folder that are published, and the front matter of its card."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from kd.export.files import CARD
from launcher.deployment.files import PublishedFiles
from launcher.deployment.folder import RECORD, read_exported
from launcher.errors import LaunchError

PIPELINES = {
    "classification": "text-classification",
    "multi_label": "text-classification",
    "regression": "text-classification",
    "tagging": "token-classification",
    "question_answering": "question-answering",
    "masked_lm": "fill-mask",
    "hidden": "feature-extraction",
}


def exported_files(folder: Path) -> PublishedFiles:
    """README, record, and every file that the record has a digest of. Raises LaunchError for a folder whose files were changed."""
    exported = read_exported(folder)
    names = sorted([CARD, RECORD, *exported.record["files"]])
    if not (folder / CARD).is_file():
        raise LaunchError(f"{folder / CARD}: expected a README, got none; write one, or export the model again")
    others = sorted(path for path in folder.iterdir() if path.name not in names and not path.name.startswith("."))
    left_out = {path.name: path.stat().st_size for path in others if path.is_file()}
    return PublishedFiles(folder, tuple(folder / name for name in names), left_out, checked=True)


def add_front_matter(card: ModelCard, folder: Path) -> None:
    """The task and the library of an export, where the card does not name them."""
    record: dict[str, Any] = read_exported(folder).record
    added: dict[str, Any] = {"pipeline_tag": PIPELINES.get(record["task"]), "tags": ["stillhouse", record["precision"]]}
    added["library_name"] = "onnx" if record["model_format"] == "onnx" else "transformers"
    for name, value in added.items():
        if value is not None and not card.data.get(name):
            card.data[name] = value
