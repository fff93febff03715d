"""`layer_map: cka` is resolved before the first update, kept by checkpoints, and shown by `stillhouse layers`."""

import argparse
import json
import random
from functools import partial

import pytest

from data_shards.corpus import Corpus
from kd.models.loading import load_mlm
from kd.models.states import EncoderShape
from kd.objective.objective import Objective
from kd.student.settings import chosen_layers
from kd.student.student import make_student
from kd.terms import layer_map
from kd.terms.layer_map import LayerPair, LayerSources, by_similarity
from launcher.errors import LaunchError
from launcher.evaluation import layers
from launcher.reporting.layer_similarity import render
from launcher.training.batches import sample_of_corpus
from launcher.training.build import CKA_ROWS, CKA_TOKENS, measure_similarities

CKA = "objective=[{kind: mlm}, {kind: hidden_mse, layer_map: cka}]"
COPIES = [LayerPair(student=0, teacher=[0]), LayerPair(student=1, teacher=[1])]


def test_cka_finds_the_layers_that_the_student_was_made_of_and_resolves_the_terms(make_config, corpus):
    config = make_config(CKA, "student={layers: first, count: 2, architecture: same}")
    teacher = load_mlm(str(corpus.model))
    student = make_student(config.student, teacher, seed=1)
    phases = config.phases_of(5)
    similarities = measure_similarities(
        phases, student, lambda number: teacher, partial(sample_of_corpus, config, Corpus.open(config.data.shards), CKA_ROWS, CKA_TOKENS)
    )
    maps = {number: by_similarity(table) for number, table in similarities.items()}
    assert maps == {0: COPIES}
    assert layer_map.from_json(json.loads(json.dumps(layer_map.to_json(maps)))) == maps
    assert "0  1.00*" in render(similarities)
    assert render(similarities).endswith("\nlayer_map: [{student: 0, teacher: 0}, {student: 1, teacher: 1}]\n")
    assert layer_map.describe(maps) == "student layer 0 from 0, 1 from 1"
    (phase,) = phases
    objective = Objective(phase.terms, 8).for_encoders(student.shape, teacher.shape, sources=LayerSources(learned=maps))
    assert [getattr(term, "layer_map", None) for term in objective.terms] == [None, COPIES]
    assert sum(int(batch.real.sum()) for batch in sample_of_corpus(config, Corpus.open(config.data.shards), 8, 100)) >= 100


@pytest.mark.parametrize(
    ("student", "seed", "expected"),
    [
        ("{layers: [0, 2, 3]}", 1, [0, 2, 3]),
        ("{layers: last, count: 2}", 1, [2, 3]),
        ("{layers: every_other, count: 2}", 1, [0, 2]),
        ("{layers: random, count: 2}", 5, sorted(random.Random(5).sample(range(4), 2))),
    ],
)
def test_copied_joins_each_student_layer_with_the_one_it_was_copied_from(make_config, corpus, student, seed, expected):
    config = make_config("objective=[{kind: mlm}, {kind: hidden_mse, layer_map: copied}]", f"student={student}", f"train.seed={seed}")
    teacher = EncoderShape(4, 32, 4)
    sources = LayerSources(chosen_layers(config.student, teacher.layers, config.train.seed))
    objective = Objective(config.objective, 8).for_encoders(EncoderShape(len(expected), 32, 4), teacher, sources=sources)
    assert objective.terms[1].layer_map == [LayerPair(student=own, teacher=[layer]) for own, layer in enumerate(expected)]
    assert objective.terms[0] == config.objective[0]


def test_copied_without_copies_is_one_line(make_config, corpus):
    line = r"objective.1.layer_map: expected a student made of this teacher's layers for copied, got student.init: .*; name another map"
    with pytest.raises(LaunchError, match=line):
        make_config("objective=[{kind: mlm}, {kind: hidden_mse, layer_map: copied}]", f"student={{init: {corpus.model}}}")


def test_where_no_term_asks_for_cka_nothing_is_compared(make_config):
    config = make_config("objective=[{kind: mlm}, {kind: hidden_mse}]")
    phases = config.phases_of(5)
    assert measure_similarities(phases, None, partial(pytest.fail, "no teacher may be loaded"), partial(pytest.fail, "nor text")) == {}


def test_the_verb_refuses_what_does_not_fit_before_it_reads_a_weight(corpus, save_model, tmp_path, monkeypatch):
    save_model(tmp_path / "other", 700)
    monkeypatch.setattr(layers, "load_mlm", lambda path: pytest.fail("weights were read"))
    settings = [f"run.folder={tmp_path}", f"data.shards={corpus.shards}", f"teacher.model={tmp_path / 'other'}"]
    with pytest.raises(LaunchError, match=r"teacher: expected a vocabulary of \d+, the shards', got 700"):
        layers.run(argparse.Namespace(config="tiny", settings=settings, tokens=200, scale=None, corpus=Corpus.open(corpus.shards)))


def test_the_verb_prints_the_table_and_the_map_as_a_setting(corpus, tmp_path, capsys):
    settings = [f"run.folder={tmp_path}", f"data.shards={corpus.shards}", f"teacher.model={corpus.model}", "student.layers=first"]
    assert layers.run(argparse.Namespace(config="tiny", settings=settings, tokens=200, scale=None, corpus=Corpus.open(corpus.shards))) == 0
    shown = capsys.readouterr().out
    assert "1.00*" in shown
    assert "layer_map: [{student: 0, teacher: 0}, {student: 1, teacher: 1}]" in shown
