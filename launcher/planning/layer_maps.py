"""Layer maps that the configuration does not name as pairs: `copied`, known from the student's settings, and `cka`, measured at the start.

The plan resolves `copied`; launcher/training/build.py measures `cka`. A checkpoint keeps the measured maps, so a continued run has the maps
that it began with.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kd.student.student import chosen_layers
from kd.terms import Term
from kd.terms.layer_map import LayerPair
from kd.training.phases import Phase
from launcher.config.run_config import RunConfig

LayerMaps = dict[int, list[LayerPair]]
"""By the teacher's number."""


def with_copied_maps(phases: Sequence[Phase], config: RunConfig, teacher_layers: int) -> tuple[Phase, ...]:
    """The phases, with each student layer learning from the teacher layer it was copied from wherever a term says copied."""
    if not any(getattr(term, "layer_map", None) == "copied" for phase in phases for term in phase.terms):
        return tuple(phases)
    layers = chosen_layers(config.student, teacher_layers, config.train.seed)
    pairs = [LayerPair(student=own, teacher=[layer]) for own, layer in enumerate(layers)]

    def one(term: Term) -> Term:
        return term.model_copy(update={"layer_map": pairs}) if getattr(term, "layer_map", None) == "copied" else term

    return tuple(replace(phase, terms=tuple(one(term) for term in phase.terms)) for phase in phases)


def with_layer_maps(phases: Sequence[Phase], maps: LayerMaps) -> tuple[Phase, ...]:
    """The phases, with these maps wherever a term says cka."""

    def one(term: Term) -> Term:
        return term.model_copy(update={"layer_map": maps[term.teacher or 0]}) if asks_for_cka(term) else term

    return tuple(replace(phase, terms=tuple(one(term) for term in phase.terms)) for phase in phases)


def to_json(maps: LayerMaps) -> dict[str, Any]:
    """The maps as plain values, for a checkpoint."""
    return {str(number): [pair.model_dump(mode="json") for pair in pairs] for number, pairs in maps.items()}


def from_json(facts: dict[str, Any]) -> LayerMaps:
    """What `to_json` made."""
    return {int(number): [LayerPair(**pair) for pair in pairs] for number, pairs in facts.items()}


def describe(maps: LayerMaps) -> str:
    """`student layer 0 from 1, 1 from 3`, with the teacher's number where there are several."""
    told = []
    for number, pairs in maps.items():
        layers = ", ".join(f"{pair.student} from {' and '.join(map(str, pair.teacher))}" for pair in pairs)
        told.append(f"student layer {layers}" + (f" of teacher {number}" if len(maps) > 1 else ""))
    return "; ".join(told)


def asks_for_cka(term: Term) -> bool:
    """Whether a term's layers are to be matched by data."""
    return getattr(term, "layer_map", None) == "cka"
