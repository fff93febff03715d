"""Tables of layer similarities, as `stillhouse layers` prints them and as `layer_maps.txt` of a run folder keeps them."""

from io import StringIO

from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from kd.terms.layer_map import LayerPair, by_similarity

Similarities = dict[int, Tensor]
"""[S, T] of the student's layers with those of a teacher, by the teacher's number."""


def render(similarities: Similarities) -> str:
    """The tables with their maps, as text."""
    text = StringIO()
    for number, table in similarities.items():
        if len(similarities) > 1:
            text.write(f"teacher {number}\n")
        show(table, by_similarity(table), Console(file=text, width=20 + 8 * table.shape[1], color_system=None))
    return text.getvalue()


def show(similarity: Tensor, pairs: list[LayerPair], console: Console) -> None:
    """Print a row per student layer and a column per teacher layer, the map's pairs marked; then the map as a setting."""
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
