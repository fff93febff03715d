"""`layer_map: cka` is settled before the first update, kept by checkpoints, and shown by `stillhouse layers`."""

import argparse
import json
from functools import partial

import pytest

from kd.layer_map import LayerPair
from kd.models import load_mlm
from kd.student import make_student
from launcher import layers
from launcher.layer_maps import as_facts, compared, described, from_facts, learned, sample, settled, tables

CKA = "objective=[{kind: mlm}, {kind: hidden_mse, layer_map: cka}]"
COPIES = [LayerPair(student=0, teacher=[0]), LayerPair(student=1, teacher=[1])]


def test_cka_finds_the_layers_that_the_student_was_made_of_and_settles_the_terms(make_config, corpus):
    config = make_config(CKA, "student={layers: first, count: 2, architecture: same}")
    teacher = load_mlm(str(corpus.model))
    student = make_student(config.student, teacher, seed=1)
    phases = config.phases_of(5)
    similarities = compared(phases, student, lambda number: teacher, config)
    maps = learned(similarities)
    assert maps == {0: COPIES}
    assert from_facts(json.loads(json.dumps(as_facts(maps)))) == maps
    assert "0  1.00*" in tables(similarities)
    assert tables(similarities).endswith("\nlayer_map: [{student: 0, teacher: 0}, {student: 1, teacher: 1}]\n")
    assert described(maps) == "student layer 0 from 0, 1 from 1"
    (phase,) = settled(phases, maps)
    assert [getattr(term, "layer_map", None) for term in phase.terms] == [None, COPIES]
    assert sum(int(batch.real.sum()) for batch in sample(config, 100)) >= 100


def test_where_no_term_asks_for_cka_nothing_is_compared(make_config):
    config = make_config("objective=[{kind: mlm}, {kind: hidden_mse}]")
    phases = config.phases_of(5)
    assert compared(phases, None, partial(pytest.fail, "no teacher may be loaded"), config) == {}
    assert settled(phases, {}) == phases


def test_the_verb_prints_the_table_and_the_map_as_a_setting(corpus, tmp_path, capsys):
    settings = [f"run.folder={tmp_path}", f"data.shards={corpus.shards}", f"teacher.model={corpus.model}", "student.layers=first"]
    assert layers.run(argparse.Namespace(config="tiny", settings=settings, tokens=200, scale=None)) == 0
    shown = capsys.readouterr().out
    assert "1.00*" in shown
    assert "layer_map: [{student: 0, teacher: 0}, {student: 1, teacher: 1}]" in shown
