"""`stillhouse layers`: how alike student and teacher layers are on the corpus (linear CKA), and the layer map that this speaks for."""

import argparse

from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from data_shards.manifest import Manifest
from kd.layer_map import LayerPair, by_similarity
from kd.models import load_mlm
from kd.similarity import layer_similarity
from kd.student import make_student
from launcher import config as configuration
from launcher import wiring
from launcher.errors import LaunchError
from launcher.layer_maps import sample


def run(arguments: argparse.Namespace) -> int:
    """Print the table of a configuration's student and (first) teacher, and the map."""
    config = configuration.load(arguments.config, arguments.settings)
    first = next(iter(config.members.values()), None)
    if first is None:
        raise LaunchError("teacher: expected a teacher to compare the student's layers with, got null; name one")
    teacher = load_mlm(first.model)
    student = make_student(config.student, teacher, config.train.seed, wiring.sample_of(config))
    manifest = Manifest.load(config.data.shards)
    for name, encoder in (("teacher", teacher), ("student", student)):
        wiring.check_fits(name, encoder, manifest, config.data.stream)
    table = layer_similarity(student, teacher, sample(config, arguments.tokens), arguments.tokens)
    show(table, by_similarity(table), Console())
    return 0


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
