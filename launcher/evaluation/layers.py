"""`stillhouse layers`: the similarity of student and teacher layers on the corpus (linear CKA), and the best layer map."""

import argparse

from data_shards.corpus import Corpus
from kd.evaluation.cka import layer_similarity
from kd.models.loading import load_mlm
from kd.student.student import make_student
from kd.terms.layer_map import by_similarity, check_learned
from launcher.config.load import load_config
from launcher.errors import LaunchError
from launcher.planning.checks import check_fits
from launcher.planning.shape_models import meta_model, meta_student
from launcher.reporting.layer_similarity import show
from launcher.tables import PlainConsole
from launcher.training.batches import sample_of_corpus
from launcher.training.build import CKA_ROWS, sample_of


def run(arguments: argparse.Namespace) -> int:
    """Print the table of a configuration's student and (first) teacher, and the map. arguments.corpus: the open corpus."""
    config = load_config(arguments.config, arguments.settings)
    first = next(iter(config.members.values()), None)
    if first is None:
        raise LaunchError("teacher: expected a teacher to compare the student's layers with, got null; name one")
    corpus: Corpus = arguments.corpus
    shape = meta_model(first.model)
    for name, encoder in (("teacher", shape), ("student", meta_student(config.student, shape))):
        check_fits(name, encoder, corpus.manifest, config.data.stream)
        check_learned(encoder.layers, shape.layers)
    teacher = load_mlm(first.model)
    student = make_student(config.student, teacher, config.train.seed, sample_of(config, corpus))
    table = layer_similarity(student, teacher, sample_of_corpus(config, corpus, CKA_ROWS, arguments.tokens), arguments.tokens)
    show(table, by_similarity(table), PlainConsole())
    return 0
