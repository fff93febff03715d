"""Tables of layer similarities, as `stillhouse layers` prints them and as `layer_maps.txt` of a run folder keeps them."""

from io import StringIO

from rich.console import Console
from torch import Tensor

from kd.terms.layer_map import LayerPair, by_similarity
from launcher.tables import Column, PlainConsole, print_table

LEGEND = "rows: student layers; columns: teacher layers; values: similarity (linear CKA) from 0 to 1, 1 is equal; *: the pair is in the map"

Similarities = dict[int, Tensor]
"""[S, T] of the student's layers with those of a teacher, by the teacher's number."""


def render(similarities: Similarities) -> str:
    """The tables with their maps, as text."""
    text = StringIO()
    for number, table in similarities.items():
        if len(similarities) > 1:
            text.write(f"teacher {number}\n")
        show(table, by_similarity(table), PlainConsole(file=text, width=max(140, 20 + 8 * table.shape[1]), color_system=None))
    return text.getvalue()


def show(similarity: Tensor, pairs: list[LayerPair], console: Console) -> None:
    """Print a row per student layer and a column per teacher layer, the map's pairs marked; then the map as a setting."""
    chosen = {(pair.student, layer) for pair in pairs for layer in pair.teacher}
    values = similarity.tolist()
    columns = [
        Column(str(layer), [f"{row[layer]:.2f}{'*' if (number, layer) in chosen else ' '}" for number, row in enumerate(values)])
        for layer in range(similarity.shape[1])
    ]
    print_table(console, Column("student \\ teacher", [str(number) for number in range(len(values))]), columns)
    console.print(LEGEND, style="dim", markup=False, highlight=False)
    written = ", ".join(f"{{student: {pair.student}, teacher: {pair.teacher[0]}}}" for pair in pairs)
    console.print(f"layer_map: [{written}]", markup=False, soft_wrap=True)
