"""Tables of layer similarity (linear CKA) with the layer map that has the highest total similarity: for a terminal and layer_maps.txt."""

from io import StringIO

from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from kd.terms.layer_map import LayerPair, by_similarity

Similarities = dict[int, Tensor]
"""[S, T] of the student's layers with those of a teacher, by its number."""


def render(similarities: Similarities) -> str:
    """The tables with their maps, for a file: the same as `show_similarity` prints."""
    text = StringIO()
    for number, table in similarities.items():
        if len(similarities) > 1:
            text.write(f"teacher {number}\n")
        show_similarity(table, by_similarity(table), Console(file=text, width=20 + 8 * table.shape[1], color_system=None))
    return text.getvalue()


def show_similarity(similarity: Tensor, pairs: list[LayerPair], console: Console) -> None:
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
