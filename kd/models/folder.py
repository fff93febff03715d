"""Checks of a model folder: that a name means a folder, and that the folder can hold a model. Imports nothing heavy."""

from pathlib import Path

from kd.errors import KdError


def is_folder(path: str) -> bool:
    """True if the text means a folder and not a name on the hub (`name` or `owner/name`)."""
    return (
        Path(path).exists()
        or path.startswith(("/", ".", "~"))
        or path.count("/") > 1
        or path.endswith("/")
        or Path(Path(path).parts[0] if path else ".").is_dir()
    )


def check_model_folder(path: str) -> None:
    """KdError for a folder that is missing, or has no config.json. Says nothing about a name on the hub."""
    if not is_folder(path):
        return
    if not Path(path).is_dir():
        raise KdError(f"{path}: expected a model folder, got nothing there; check the path")
    if not (Path(path) / "config.json").is_file():
        raise KdError(f"{path}: expected a model folder with config.json, got none; point to a Hugging Face model folder")
