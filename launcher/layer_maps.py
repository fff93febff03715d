"""`layer_map: cka`, settled once at a run's start: the student as it is before its first update, on the stream's first windows.

A checkpoint keeps the maps, so a continued run has those it began with. `stillhouse layers` (launcher/layers.py) shows the table.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from data_shards.stream import Stream
from kd.batch import Batch
from kd.layer_map import LayerPair, by_similarity
from kd.models import Encoder
from kd.phases import Phase
from kd.similarity import layer_similarity
from kd.terms import Term
from launcher.config import RunConfig
from launcher.feed import sample_batches

SAMPLE_TOKENS = 4096
SAMPLE_ROWS = 8  # at a time

LearnedMaps = dict[int, list[LayerPair]]
"""By the teacher's number."""


def sample(config: RunConfig, tokens: int = SAMPLE_TOKENS) -> list[Batch]:
    """The stream's first windows, the same for any number of ranks."""
    return sample_batches(Stream(config.data.shards, "train", config.data.stream, SAMPLE_ROWS), tokens)


def learned(phases: Sequence[Phase], student: Encoder, teacher: Callable[[int], Encoder], config: RunConfig) -> LearnedMaps:
    """The maps that `cka` means in any phase; teacher: loads teacher number n. Empty, and nothing is computed, where no term asks."""
    asked = sorted({term.teacher or 0 for phase in phases for term in phase.terms if _asks(term)})
    if not asked:
        return {}
    batches = sample(config)
    return {number: by_similarity(layer_similarity(student, teacher(number), batches, SAMPLE_TOKENS)) for number in asked}


def settled(phases: Sequence[Phase], maps: LearnedMaps) -> tuple[Phase, ...]:
    """The phases, with these maps wherever a term says cka."""

    def one(term: Term) -> Term:
        return term.model_copy(update={"layer_map": maps[term.teacher or 0]}) if _asks(term) else term

    return tuple(replace(phase, terms=tuple(one(term) for term in phase.terms)) for phase in phases)


def as_facts(maps: LearnedMaps) -> dict[str, Any]:
    """The maps as plain values, for a checkpoint."""
    return {str(number): [pair.model_dump(mode="json") for pair in pairs] for number, pairs in maps.items()}


def from_facts(facts: dict[str, Any]) -> LearnedMaps:
    """What `as_facts` made."""
    return {int(number): [LayerPair(**pair) for pair in pairs] for number, pairs in facts.items()}


def described(maps: LearnedMaps) -> str:
    """`student layer 0 from 1, 1 from 3`, with the teacher's number where there are several."""
    told = []
    for number, pairs in maps.items():
        layers = ", ".join(f"{pair.student} from {' and '.join(map(str, pair.teacher))}" for pair in pairs)
        told.append(f"student layer {layers}" + (f" of teacher {number}" if len(maps) > 1 else ""))
    return "; ".join(told)


def _asks(term: Term) -> bool:
    return getattr(term, "layer_map", None) == "cka"
