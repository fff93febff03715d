"""A finished student as a Hugging Face folder: weights, config, tokenizer and a model card that says what it is.

The folder appears whole or not at all, and holds a plain model that `AutoModelForMaskedLM.from_pretrained` reads: nothing of the lesson is
inside.
"""

import os
import shutil
from pathlib import Path

from safetensors import SafetensorError

from kd.errors import KdError
from kd.export.files import CARD, TOKENIZER_FILES
from kd.export.model_card import CardFacts, model_card
from kd.models.config import quiet_transformers
from kd.models.encoder import Encoder
from stillhouse.files import sync_path

NO_FACTS = CardFacts()


def save_student(encoder: Encoder, folder: Path, *, tokenizer_folder: Path | None, card: CardFacts | str = NO_FACTS) -> None:
    """Write the student to `folder`, replacing an earlier student there.

    card: what the model card says, or its whole text.
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
        (partial / CARD).write_text(card if isinstance(card, str) else model_card(encoder, card), encoding="utf-8")
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


def _tokenizer_files(folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    files = [Path(folder) / name for name in TOKENIZER_FILES if (Path(folder) / name).is_file()]
    if not files:
        raise KdError(f"{folder}: expected tokenizer files to copy (tokenizer.json …), got none; check the path")
    return files
