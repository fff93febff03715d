"""A finished student as a Hugging Face folder: weights, config, tokenizer and a model card that says what it is.

The folder appears whole or not at all, and holds a plain model that `AutoModelForMaskedLM.from_pretrained` reads: nothing of the lesson is
inside.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from kd.errors import KdError
from kd.models.config import quiet_transformers
from kd.models.encoder import Encoder
from stillhouse.files import sync_path

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
)


@dataclass(frozen=True)
class Sizes:
    """A model's size: weights (tied ones once), those that train, and bytes in the dtype they have now."""

    parameters: int
    trainable: int
    bytes: int


def model_sizes(encoder: Encoder) -> Sizes:
    """How large a model is."""
    weights = list(encoder.parameters())
    return Sizes(
        parameters=sum(weight.numel() for weight in weights),
        trainable=sum(weight.numel() for weight in weights if weight.requires_grad),
        bytes=sum(weight.numel() * weight.element_size() for weight in weights),
    )


def save_student(encoder: Encoder, folder: Path, *, training: Mapping[str, Any], tokenizer_folder: Path | None) -> None:
    """Write the student to `folder`, replacing an earlier student there.

    training: what the model card says, in order: plain values, or mappings for tables (teacher, layers, objective, tokens, scores …).
    Raises KdError when the folder holds something else, when the tokenizer folder holds none, or when writing fails (the earlier student is
    still there then).
    """
    folder = Path(folder)
    if folder.exists() and not (folder / "config.json").is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise KdError(f"{folder}: expected a free name or an earlier model to replace, got something else; choose another folder")
    tokenizer = _tokenizer_files(tokenizer_folder)
    partial, earlier = (folder.with_name(f".{folder.name}.{state}-{os.getpid()}") for state in ("partial", "earlier"))
    try:
        partial.mkdir(parents=True)
        with quiet_transformers():
            encoder.hf.save_pretrained(partial)
        for file in tokenizer:
            shutil.copyfile(file, partial / file.name)
        (partial / "README.md").write_text(model_card(encoder, training), encoding="utf-8")
        for file in partial.iterdir():
            file.chmod(partial.stat().st_mode & 0o666)  # safetensors gives 0600; the folder has the user's umask
            sync_path(file)
        if folder.exists():
            folder.rename(earlier)
        partial.rename(folder)
        sync_path(folder.parent)
    except (OSError, SafetensorError) as error:
        if earlier.exists() and not folder.exists():
            earlier.rename(folder)
        raise KdError(f"{folder}: expected to write the student there, got {error}; free space or choose another folder") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(earlier, ignore_errors=True)


def model_card(encoder: Encoder, training: Mapping[str, Any]) -> str:
    """README.md of the exported folder: front matter for the hub, sizes, then `training` as it was given."""
    sizes = model_sizes(encoder)
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: fill-mask",
        "tags:",
        *(["- distillation"] if training.get("teacher") else []),
        "- masked-lm",
        "---",
        "",
        f"# {encoder.family.name}, {encoder.layers} layers of width {encoder.width}",
        "",
        "A masked-language model trained with Stillhouse. It loads with transformers alone:",
        "",
        "```python",
        "from transformers import AutoModelForMaskedLM, AutoTokenizer",
        "",
        'model = AutoModelForMaskedLM.from_pretrained("this folder")',
        'tokenizer = AutoTokenizer.from_pretrained("this folder")',
        "```",
        "",
        "| | |",
        "| --- | --- |",
        f"| parameters | {sizes.parameters:,} |",
        f"| bytes | {sizes.bytes:,} |",
        f"| vocabulary | {encoder.vocabulary:,} |",
        f"| positions | {encoder.max_positions:,} |",
    ]
    plain = {name: value for name, value in training.items() if not isinstance(value, Mapping)}
    lines += [f"| {name} | {_cell(value)} |" for name, value in plain.items()]
    for name, table in training.items():
        if isinstance(table, Mapping):
            lines += ["", f"## {name}", "", "| | |", "| --- | --- |"]
            lines += [f"| {key} | {_cell(value)} |" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def public_name(model: str) -> str:
    """A model as the card names it: a hub name, or the last folder of a path, whose other folders are private."""
    return Path(model).resolve().name if Path(model).exists() or model.startswith(("/", "~", ".")) else model


def _cell(value: Any) -> str:
    """A value on one line of a table."""
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    text = f"{value:.4g}" if isinstance(value, float) else text
    return " ".join(text.split()).replace("|", "\\|")


def _tokenizer_files(folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    files = [Path(folder) / name for name in TOKENIZER_FILES if (Path(folder) / name).is_file()]
    if not files:
        raise KdError(f"{folder}: expected tokenizer files to copy (tokenizer.json …), got none; check the path")
    return files
