"""TinyBERT's augmented rows of a task: made once before the first update, kept in a file that is found by content."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

from data_shards.tasks.augment import augmented
from data_shards.tasks.examples import Examples
from data_shards.tokenizer.tokenizer import load_tokenizer
from kd.distributed import process_group
from kd.models.loading import check_mlm_head, load_mlm, weights_digest
from kd.tasks.augmentation import Augmenter
from launcher.config.task_config import AugmentSettings
from launcher.errors import LaunchError
from launcher.process.standard_streams import say
from launcher.process.steps import step
from launcher.tasks.source import AUGMENTED, TaskSource, fingerprint
from launcher.text import duration
from stillhouse.digests import canonical_sha256
from stillhouse.files import cache_folder, sha256_of_file, write_atomically

FORMAT = 1
FOLDER = "augmented-rows"
SHOWN_SECONDS = 10.0


def most_rows(source: TaskSource) -> int:
    """The most augmented rows that a run's data can have; 0 without augmentation."""
    settings = source.augment
    if settings is None:
        return 0
    train = source.splits["train"]
    return settings.copies * len(train) * (1 if train.pairs is None else 2)


def read_augmented(source: TaskSource) -> bool:
    """Add the augmented rows to the source if an earlier run made them. False if they have to be made. Loads no weight of a folder.

    Raises KdError for a model without a masked-language-model head.
    """
    if source.augment is None or AUGMENTED in source.splits:
        return True
    check_mlm_head(source.augment.model)
    copies = _read(_file(source, source.augment))
    if copies is None:
        return False
    _add(source, source.augment, copies)
    return True


def augment(source: TaskSource, touch: Callable[[], None]) -> None:
    """Add the augmented rows to the source: from the file, or made, and then written. Collective: each rank makes its share of the texts.

    touch: says that this rank is alive. Raises KdError for a model without a masked-language-model head.
    """
    settings = source.augment
    if settings is None or (AUGMENTED in source.splits and process_group.world_size() == 1):
        return
    file, texts = _file(source, settings), _texts(source.splits["train"])
    copies = _read(file)
    rank, world = process_group.rank(), process_group.world_size()
    if "0" in process_group.texts("0" if copies is None else "1"):
        with step(f"data.augment: changing words of {len(texts):,} texts with {settings.model}"):
            mine = _make(settings, texts[rank::world], touch)
            parts = [json.loads(part) for part in process_group.texts(json.dumps(mine, ensure_ascii=True))]
        copies = [parts[number % world][number // world] for number in range(len(texts))]
        if rank == 0:
            body = json.dumps(copies, ensure_ascii=True)
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(file, f"{hashlib.sha256(body.encode()).hexdigest()}\n{body}", shared=True)
            except OSError as error:
                say(f"{file}: the augmented rows could not be written ({error.strerror or error}); they are kept in memory")
    assert copies is not None
    _add(source, settings, copies)


def _make(settings: AugmentSettings, texts: list[str], touch: Callable[[], None]) -> list[list[str]]:
    """The copies of each text."""
    tokenizer = load_tokenizer(settings.model)
    if tokenizer.mask_token_id is None:
        raise LaunchError(f"data.augment.model: expected a tokenizer with a mask token, got none in {settings.model}; choose another model")
    encoder = load_mlm(settings.model).to(process_group.device())
    augmenter = Augmenter(encoder, tokenizer.backend_tokenizer, tokenizer.mask_token_id, settings)
    made: list[list[str]] = []
    started = shown = time.monotonic()
    for copies in augmenter.copies(texts):
        made.append(copies)
        touch()
        now = time.monotonic()
        if process_group.rank() == 0 and now - shown >= SHOWN_SECONDS:
            shown = now
            left = (now - started) / len(made) * (len(texts) - len(made))
            say(f"data.augment: {len(made):,} of {len(texts):,} texts, {duration(left)} left")
    return made


def _texts(train: Examples) -> list[str]:
    """The different texts of train, in order. Of pairs, both."""
    return list(dict.fromkeys([*train.texts, *(train.pairs or [])]))


def _add(source: TaskSource, settings: AugmentSettings, copies: list[list[str]]) -> None:
    """Add the rows as a split, and a note of their number. Rows that are also in a split that is scored are left out."""
    train = source.splits["train"]
    table = dict(zip(_texts(train), copies, strict=True))
    rows = augmented(train, lambda texts: (table[text] for text in texts))
    scored = {
        inputs for name, split in source.splits.items() if name not in ("train", AUGMENTED, "unlabelled") for inputs in split.inputs()
    }
    kept = [number for number, inputs in enumerate(rows.inputs()) if inputs not in scored]
    left_out = f"; {len(rows) - len(kept):,} that are also in dev or test are left out" if len(kept) < len(rows) else ""
    source.add_augmented(
        rows.take(kept),
        f"augmented: {len(kept):,} rows made of {len(train):,} rows of train with {settings.model} "
        f"(copies {settings.copies}, probability {settings.probability:g}, candidates {settings.candidates}){left_out}",
    )


def _read(file: Path) -> list[list[str]] | None:
    """The copies of each text; None without a file, and for a damaged one, which is said."""
    if not file.is_file():
        return None
    try:
        digest, _, body = file.read_text(encoding="ascii").partition("\n")
    except (OSError, ValueError):
        digest, body = "", ""
    if hashlib.sha256(body.encode()).hexdigest() != digest:
        say(f"{file}: expected the augmented rows that were written, got others; they are made anew")
        return None
    copies: list[list[str]] = json.loads(body)
    return copies


def _file(source: TaskSource, settings: AugmentSettings) -> Path:
    """The file of these texts' copies: named after the texts, the settings, the model's weights and its tokenizer."""
    folder = Path(settings.model).expanduser()
    if folder.is_dir():
        files = sorted(path for path in folder.iterdir() if path.name == "config.json" or path.suffix in (".safetensors", ".bin"))
        weights: object = [[path.name, sha256_of_file(path)] for path in files]
    else:
        weights = weights_digest(load_mlm(settings.model))
    facts = [FORMAT, weights, fingerprint(source.tokenizer(settings.model)), settings.model_dump(exclude={"model"})]
    facts.append(_texts(source.splits["train"]))
    return cache_folder() / FOLDER / f"{canonical_sha256(facts, ascii_only=True)[:40]}.json"
