"""Parts to shards: read in the order of the sources, duplicates dropped, counted, cut into blocks and shards. Nothing is tokenised."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from data_shards.build.build import LOCK
from data_shards.build.journal import refuse_other_settings
from data_shards.build.parts import EMPTY, PARTS, Block, Item, items, place_of, read_item
from data_shards.build.settings import BuildSettings
from data_shards.build.sidecars import finish
from data_shards.errors import DataError
from data_shards.storage.manifest import MANIFEST, SPLITS, BuiltFrom, Manifest, smallest_dtype
from data_shards.storage.shard_writer import SplitWriter
from data_shards.tokenizer.tokenizer import load_tokenizer, vocabulary_size
from stillhouse.errors import one_line


def seal(settings: BuildSettings, folder: str | Path, parts: int) -> Manifest:
    """The folder that `build` makes of these settings, byte for byte, from its parts. Raises DataError when one is missing."""
    folder = Path(folder)
    tokenizer = load_tokenizer(settings.tokenizer)
    place = place_of(folder, settings, tokenizer, parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK, timeout=0):
            if (folder / MANIFEST).is_file():
                manifest = Manifest.load(folder)
                refuse_other_settings(folder, manifest.built_from.settings, settings.model_dump(mode="json"), "shards built")
            else:
                missing = [
                    f"{number}"
                    for number, share in enumerate(items(settings, parts), start=1)
                    if not all((place / i.name).is_file() for i in share)
                ]
                if missing:
                    raise DataError(
                        f"{folder}: expected {parts} finished parts of these settings, got none of part {', '.join(missing[:8])} "
                        f"({len(missing)} in all); build them, then seal again"
                    )
                for old in [*folder.glob("*.tar"), *folder.glob(".*.tar.partial")]:  # of a seal that was killed
                    old.unlink()
                manifest = _seal(settings, folder, place, parts, tokenizer)
            shutil.rmtree(folder / PARTS, ignore_errors=True)
            return manifest
    except Timeout:
        raise DataError(f"{folder}: expected no other build at work, got one that holds {LOCK}; wait for it") from None
    except OSError as error:
        raise DataError(f"{folder}: expected a folder that can be written, got {one_line(error)}; choose another, or free space") from None


def _in_order(shares: list[list[Item]], place: Path, dtype: str) -> Iterator[tuple[Block | None, int]]:
    """The blocks of all items as they stand in the sources, stripes put together again."""
    every = sorted((item for share in shares for item in share), key=lambda item: (item.number, item.stripe))
    for number in range(every[-1].number + 1):
        readers = [read_item(place / item.name, dtype) for item in every if item.number == number]
        group = 0
        while True:
            block, left_out, group_ends = next(readers[group % len(readers)])
            yield block, left_out
            if block is None:
                break
            group += group_ends


def _seal(settings: BuildSettings, folder: Path, place: Path, parts: int, tokenizer: Any) -> Manifest:
    size = vocabulary_size(tokenizer)
    dtype = smallest_dtype(size)
    writers = {
        split: SplitWriter(folder, split, settings.block_tokens, settings.shard_tokens, size, lambda entry: None) for split in SPLITS
    }
    read = empty = duplicate = kept = invalid = 0
    seen: set[bytes] = set()
    try:
        for block, left_out in _in_order(items(settings, parts), place, dtype):
            if block is None:
                invalid += left_out
                continue
            keep = np.zeros(len(block.lengths), np.bool_)
            for index, (split, digest) in enumerate(zip(block.splits, block.digests, strict=True)):
                read += 1
                invalid += int(block.left_out[index])
                if split == EMPTY:
                    empty += 1
                elif settings.drop_duplicates and digest in seen:
                    duplicate += 1
                else:
                    seen.add(digest) if settings.drop_duplicates else None
                    keep[index] = True
                    kept += 1
                    if kept == settings.max_documents:
                        break
            for number, split in enumerate(SPLITS):
                chosen = keep & (block.splits == number)
                if chosen.any():
                    digests = [digest for digest, wanted in zip(block.digests, chosen, strict=True) if wanted]
                    writers[split].add(block.ids[np.repeat(chosen, block.lengths)], block.lengths[chosen], digests)
            if kept == settings.max_documents:
                break
        for writer in writers.values():
            writer.finish()
    except BaseException:
        for writer in writers.values():
            writer.abandon()
        raise
    entries = {split: tuple(writer.entries) for split, writer in writers.items()}
    if not entries["train"]:
        got = f"{read} documents, {empty} of them empty, {sum(e.documents for e in entries['heldout'])} held out"
        raise DataError(f"{folder}: expected a document with text to train on, got {got}; check sources, column and heldout")
    written = sum(entry.documents for split in entries.values() for entry in split)
    dump = settings.model_dump(mode="json")
    built_from = BuiltFrom(settings=dump, documents_read=read, empty=empty + kept - written, duplicate=duplicate, invalid=invalid)
    return finish(folder, entries, writers["train"].counts, tokenizer, built_from)
