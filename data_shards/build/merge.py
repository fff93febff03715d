"""Parts to shards: blocks are read in the order of the sources, counted and cut into shards. Nothing is tokenised."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_shards.build.blocks import Block, write_block
from data_shards.build.documents import Selection
from data_shards.build.folder import LOCK, finished, locked
from data_shards.build.parts import PARTS, Item, items, part_folder, read_item
from data_shards.build.settings import BuildSettings
from data_shards.build.sidecars import finish
from data_shards.errors import DataError
from data_shards.storage.manifest import Manifest, smallest_dtype
from data_shards.storage.shard_writer import ShardWriters
from data_shards.tokenizer.tokenizer import load_tokenizer, vocabulary_size


def merge(settings: BuildSettings, folder: str | Path, parts: int) -> Manifest:
    """The folder that `build` makes of these settings, byte for byte, from its parts. Raises DataError when one is missing."""
    folder = Path(folder)
    tokenizer = load_tokenizer(settings.tokenizer)
    source = part_folder(folder, settings, tokenizer, parts)
    with locked(folder, folder / LOCK):
        manifest = finished(folder, settings)
        if manifest is None:
            shares = items(settings, parts)
            _check_complete(folder, source, shares)
            for path in [*folder.glob("*.tar"), *folder.glob(".*.tar.partial")]:  # of a merge that was killed
                path.unlink()
            size = vocabulary_size(tokenizer)
            selection = Selection(settings)
            with ShardWriters(folder, settings.block_tokens, settings.shard_tokens, size) as shards:
                _write(_in_order(shares, source, smallest_dtype(size)), selection, shards)
            built_from = selection.built_from(folder, shards)
            manifest = finish(folder, shards.entries, shards.counts, tokenizer, built_from)
        shutil.rmtree(folder / PARTS, ignore_errors=True)
        return manifest


def _check_complete(folder: Path, source: Path, shares: list[list[Item]]) -> None:
    """Raises DataError naming the parts that are not finished."""
    missing = [str(part) for part, share in enumerate(shares, start=1) if not all((source / item.name).is_file() for item in share)]
    if missing:
        raise DataError(
            f"{folder}: expected {len(shares)} finished parts of these settings, got none of part {', '.join(missing[:8])} "
            f"({len(missing)} in all); build them, then merge with --seal {len(shares)}"
        )


def _in_order(shares: list[list[Item]], source: Path, dtype: str) -> Iterator[tuple[Block | None, int]]:
    """The content of all items in the order of the sources; the groups of stripes alternate. See read_item."""
    ordered = sorted((item for share in shares for item in share), key=lambda item: (item.number, item.stripe))
    for number in range(ordered[-1].number + 1):
        readers = [read_item(source / item.name, dtype) for item in ordered if item.number == number]
        group = 0
        while True:
            block, left_out = next(readers[group % len(readers)])
            yield block, left_out
            if block is None:
                break
            group += block.group_ends


def _write(blocks: Iterator[tuple[Block | None, int]], selection: Selection, shards: ShardWriters) -> None:
    """Add the selected documents to the shards. Reads no block after the last one."""
    for block, left_out in blocks:
        selection.counts.invalid += left_out
        if block is None:
            continue
        keep = np.zeros(len(block.lengths), np.bool_)
        for index, (split, digest) in enumerate(zip(block.splits, block.digests, strict=True)):
            selection.counts.invalid += int(block.left_out[index])
            keep[index] = selection.keeps(int(split), digest)
            if selection.complete:
                break
        write_block(shards, block, keep)
        if selection.complete:
            return
