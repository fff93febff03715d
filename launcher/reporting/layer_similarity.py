"""Layer maps that a run settles: `copied`, by the layers that its student was made of, and `cka`, once at its start, on data.

For `cka` it is the student as it is before its first update, on the stream's first windows.

A checkpoint keeps the maps, so a continued run has those it began with; `layer_maps.txt` of the run folder has them with the similarities
they come from, as `stillhouse layers` (launcher/evaluation/layers.py) prints them beforehand.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from io import StringIO
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from data_shards.stream.stream import Stream
from kd.batch import Batch
from kd.evaluation.cka import layer_similarity
from kd.models.encoder import Encoder
from kd.student.student import chosen_layers
from kd.terms import Term
from kd.terms.layer_map import LayerPair, by_similarity
from kd.training.phases import Phase
from launcher.config.load import RunConfig
from launcher.training.batches import sample_batches

SAMPLE_TOKENS = 4096
SAMPLE_ROWS = 8  # at a time

LearnedMaps = dict[int, list[LayerPair]]
"""By the teacher's number."""
Similarities = dict[int, Tensor]
"""[S, T] of the student's layers with those of a teacher, by its number."""


def sample(config: RunConfig, tokens: int = SAMPLE_TOKENS) -> list[Batch]:
    """The stream's first windows, the same for any number of ranks."""
    return sample_batches(Stream(config.data.shards, "train", config.data.stream, SAMPLE_ROWS), tokens)


def compared(phases: Sequence[Phase], student: Encoder, teacher: Callable[[int], Encoder], config: RunConfig) -> Similarities:
    """What the maps that `cka` means in any phase are read off; teacher: loads teacher number n. Empty, and nothing is computed, where no
    term asks.
    """
    asked = sorted({term.teacher or 0 for phase in phases for term in phase.terms if asks_for_cka(term)})
    if not asked:
        return {}
    batches = sample(config)
    return {number: layer_similarity(student, teacher(number), batches, SAMPLE_TOKENS) for number in asked}


def learned(similarities: Similarities) -> LearnedMaps:
    """The map that each table speaks for."""
    return {number: by_similarity(table) for number, table in similarities.items()}


def as_copied(phases: Sequence[Phase], config: RunConfig, teacher_layers: int) -> tuple[Phase, ...]:
    """The phases, with each student layer learning from the teacher layer it was copied from wherever a term says copied."""
    if not any(getattr(term, "layer_map", None) == "copied" for phase in phases for term in phase.terms):
        return tuple(phases)
    layers = chosen_layers(config.student, teacher_layers, config.train.seed)
    pairs = [LayerPair(student=own, teacher=[layer]) for own, layer in enumerate(layers)]

    def one(term: Term) -> Term:
        return term.model_copy(update={"layer_map": pairs}) if getattr(term, "layer_map", None) == "copied" else term

    return tuple(replace(phase, terms=tuple(one(term) for term in phase.terms)) for phase in phases)


def settled(phases: Sequence[Phase], maps: LearnedMaps) -> tuple[Phase, ...]:
    """The phases, with these maps wherever a term says cka."""

    def one(term: Term) -> Term:
        return term.model_copy(update={"layer_map": maps[term.teacher or 0]}) if asks_for_cka(term) else term

    return tuple(replace(phase, terms=tuple(one(term) for term in phase.terms)) for phase in phases)


def as_facts(maps: LearnedMaps) -> dict[str, Any]:
    """The maps as plain values, for a checkpoint."""
    return {str(number): [pair.model_dump(mode="json") for pair in pairs] for number, pairs in maps.items()}


def from_facts(facts: dict[str, Any]) -> LearnedMaps:
    """What `as_facts` made."""
    return {int(number): [LayerPair(**pair) for pair in pairs] for number, pairs in facts.items()}


def tables(similarities: Similarities) -> str:
    """The tables with their maps, for a file: the same as `show` prints."""
    text = StringIO()
    for number, table in similarities.items():
        if len(similarities) > 1:
            text.write(f"teacher {number}\n")
        show(table, by_similarity(table), Console(file=text, width=20 + 8 * table.shape[1], color_system=None))
    return text.getvalue()


def show(similarity: Tensor, pairs: list[LayerPair], console: Console) -> None:
    """A row a student layer, a column a teacher layer, the map's pairs marked; then the map as a setting."""
    chosen = {(pair.student, layer) for pair in pairs for layer in pair.teacher}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("student \\ teacher", justify="right")
    for layer in range(similarity.shape[1]):
        table.add_column(str(layer), justify="right", no_wrap=True)
    for row, values in enumerate(similarity.tolist()):
        table.add_row(str(row), *(f"{value:.2f}{'*' if (row, column) in chosen else ' '}" for column, value in enumerate(values)))
    console.print(table)
    written = ", ".join(f"{{student: {pair.student}, teacher: {pair.teacher[0]}}}" for pair in pairs)
    console.print(f"layer_map: [{written}]", markup=False, soft_wrap=True)


def described(maps: LearnedMaps) -> str:
    """`student layer 0 from 1, 1 from 3`, with the teacher's number where there are several."""
    told = []
    for number, pairs in maps.items():
        layers = ", ".join(f"{pair.student} from {' and '.join(map(str, pair.teacher))}" for pair in pairs)
        told.append(f"student layer {layers}" + (f" of teacher {number}" if len(maps) > 1 else ""))
    return "; ".join(told)


def asks_for_cka(term: Term) -> bool:
    """Whether a term's layers are to be matched by data."""
    return getattr(term, "layer_map", None) == "cka"
