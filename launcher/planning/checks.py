"""Checks of models, corpus and teacher caches against each other, before any weight is loaded."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from data_shards.storage.manifest import Manifest
from data_shards.stream.settings import StreamSettings
from data_shards.stream.stream import Stream
from kd.models.encoder import Encoder
from kd.objective.objective import Objective
from kd.teacher.cached import check_cache
from kd.teacher.hidden_state_cache import Positions
from kd.teacher.modes import CACHED_OUTPUTS
from kd.teacher.teachers import check_provides
from kd.training.settings import CheckpointSettings
from launcher.config.run_config import RunConfig
from launcher.errors import LaunchError
from launcher.process.preflight import existing_parent
from launcher.text import size

CHECKPOINTS = "checkpoints"
SPARE_ROWS = 256  # a vocabulary may be padded to a round number of rows, no further


def check_fits(name: str, encoder: Encoder, manifest: Manifest, stream: StreamSettings) -> None:
    """A model and a corpus belong together: vocabulary, window length, and documents side by side."""
    if not manifest.vocabulary_size <= encoder.vocabulary <= manifest.vocabulary_size + SPARE_ROWS:
        raise LaunchError(
            f"{name}: expected a vocabulary of {manifest.vocabulary_size}, the shards', got {encoder.vocabulary}; "
            f"build shards with the {name}'s own tokenizer"
        )
    if stream.window_tokens > encoder.max_positions:
        raise LaunchError(
            f"data.window_tokens: expected at most {encoder.max_positions}, the {name}'s positions, "
            f"got {stream.window_tokens}; shorten them"
        )
    if not encoder.packs and stream.packing == "windows" and not stream.attend_across_documents:
        raise LaunchError(
            f"data.packing: expected documents for the {name}, whose convolution reads across the documents of a window, got windows; "
            "set data.packing: documents (evaluate: --packing documents)"
        )


def check_caches(
    config: RunConfig, teachers: Sequence[Encoder], objectives: Sequence[Objective], precision: str, stream: Stream, windows: int
) -> None:
    """Raise KdError or LaunchError, one line. teachers: on the meta device; objectives: layer maps resolved; windows: the run reads."""
    for number, (place, member) in enumerate(config.members.items()):
        if member.cache is None:
            continue
        for objective in objectives:
            check_provides(objective, number, CACHED_OUTPUTS, "all")
        header = check_cache(place, member, teachers[number], precision)
        for objective in objectives:
            check_provides(objective, number, CACHED_OUTPUTS, header.positions)
        there = header.covers.get(stream.fingerprint, 0)
        if there < windows:
            other = "" if there or not header.covers else " (it has those of another corpus, order or masking)"
            raise LaunchError(
                f"{place}.cache {member.cache}: expected the run's {windows:,} windows, got the first {there:,} of them{other}; "
                "fill it: stillhouse cache, with the same configuration"
            )


def positions_asked(objectives: Sequence[Objective], number: int) -> Positions:
    """The positions of teacher `number` that terms read. Raises KdError for a term that a cached teacher cannot teach."""
    asking = [(objective, term) for objective in objectives for term in objective.terms if objective.required_of(term, number)]
    for objective, _ in asking:
        check_provides(objective, number, CACHED_OUTPUTS, "all")
    return "masked" if all(term.masked_only for _, term in asking) else "all"


def disk(folder: Path, checkpoint: int, export: int, settings: CheckpointSettings) -> tuple[int, int]:
    """(bytes that a run still has to write, bytes free where it writes). checkpoint, export: bytes of one checkpoint, of the student."""
    existing = existing_parent(folder)
    kept = (settings.keep_last + settings.keep_best + 1) * checkpoint
    there = sum(file.stat().st_size for file in (folder / CHECKPOINTS).rglob("*") if file.is_file())
    return max(kept - there, checkpoint) + export, shutil.disk_usage(existing).free


def check_disk(folder: Path, needed: int, free: int) -> None:
    """LaunchError where the checkpoints of a run do not fit. For the rank that writes: the disks of other hosts do not matter."""
    if not (existing := existing_parent(folder)).is_dir():
        raise LaunchError(f"run.folder: expected a folder, got the file {existing}; choose another")
    if needed > free:
        raise LaunchError(
            f"run.folder: expected {size(needed)} free for checkpoints, got {size(free)} in {existing}; "
            "free space, lower checkpoint.keep_last or keep_best, or choose another folder"
        )
