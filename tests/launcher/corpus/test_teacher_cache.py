"""`stillhouse cache`: what a plan refuses, what a filling leaves, and that it goes on where it was."""

import argparse
from pathlib import Path

import pytest
from filelock import FileLock

from data_shards.corpus import Corpus
from kd.teacher.hidden_state_cache import CacheHeader, StateCache, read_header
from kd.teacher.teacher import FrozenEncoder
from launcher.corpus import teacher_cache
from launcher.errors import LaunchError
from launcher.planning.plan import make_plan
from launcher.planning.table import rows

MASKED = "objective=[{kind: soft_targets, positions: masked}, {kind: mlm}]"


@pytest.fixture
def cached(make_config, tmp_path, monkeypatch):
    """cached(*overrides): the tiny run with a cached teacher; fill(*overrides, **arguments): its cache, filled."""
    monkeypatch.chdir(tmp_path)

    def config(*overrides: str):
        return make_config("teacher.mode=cached", f"teacher.cache={tmp_path / 'cache'}", *overrides)

    return config


@pytest.fixture
def fill(corpus, tmp_path, monkeypatch):
    """fill(*overrides, mode=…, positions=…): the verb; the header that it leaves."""

    def run(*overrides: str, mode: str = "replicated", positions: str | None = None) -> CacheHeader:
        paths = [f"data.shards={corpus.shards}", f"teacher.model={corpus.model}", f"run.folder={tmp_path / 'run'}"]
        settings = [*paths, "teacher.mode=cached", f"teacher.cache={tmp_path / 'cache'}", *overrides]
        with monkeypatch.context() as own:
            for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):  # which a group of one leaves behind
                own.setenv(name, "0")
                own.delenv(name)
            arguments = {"config": "tiny", "settings": settings, "mode": mode, "positions": positions, "corpus": Corpus.open(corpus.shards)}
            assert teacher_cache.run(argparse.Namespace(**arguments)) == 0
        return read_header(tmp_path / "cache")

    return run


def test_a_run_is_planned_only_when_its_cache_covers_it(cached, fill):
    with pytest.raises(Exception, match=r"cache.json: expected a cache of hidden states, got none; fill it: stillhouse cache"):
        make_plan(cached(), 1)
    fill("train.updates=3")
    with pytest.raises(LaunchError, match=r"teacher.cache .*: expected the run's 32 windows, got the first 24 of them; fill it"):
        make_plan(cached("train.updates=4"), 1)
    fill("train.updates=4")
    plan = make_plan(cached("train.updates=4"), 1)
    teacher, whole = plan.teachers[0], make_plan(cached("train.updates=4", "teacher.mode=replicated", "teacher.cache=null"), 1).teachers[0]
    assert ("cached", whole.bytes) == (teacher.mode, teacher.bytes)
    assert 0 < teacher.bytes_per_rank < whole.bytes_per_rank
    assert any("cached" in value for _, value in rows(plan))
    with pytest.raises(LaunchError, match=r"got the first 0 of them \(it has those of another corpus, order or masking\); fill it"):
        make_plan(cached("train.updates=4", "data.seed=7"), 1)
    with pytest.raises(Exception, match=r"objective\.0 \(hidden_mse\): expected a teacher that gives hidden, got a cached one"):
        make_plan(cached("train.updates=4", "objective=[{kind: hidden_mse}]"), 1)


def test_a_longer_run_adds_what_it_lacks_and_other_orders_stand_beside(fill, cached):
    first = fill("train.updates=2")
    longer = fill("train.updates=5")
    assert (first.rows, longer.rows) == (16, 40)
    assert first.files.items() <= longer.files.items()
    other = fill("train.updates=2", "data.seed=7")
    assert (other.rows, len(other.covers)) == (56, 2)
    assert fill("train.updates=5") == other
    for seed in (1, 7):
        make_plan(cached("train.updates=2", f"data.seed={seed}"), 1)
    StateCache(Path("cache"))


def test_a_filling_that_was_stopped_goes_on_after_its_last_file(fill, tmp_path, monkeypatch):
    whole = fill("train.updates=6")
    (tmp_path / "cache").rename(tmp_path / "whole")
    monkeypatch.setattr(teacher_cache, "SEGMENT_BYTES", 1.0)  # a file an update
    forward, passes = FrozenEncoder.forward, []

    def stumbling(self, *inputs):
        passes.append(1)
        if len(passes) == 11:
            raise KeyboardInterrupt
        return forward(self, *inputs)

    monkeypatch.setattr(FrozenEncoder, "forward", stumbling)
    with pytest.raises(KeyboardInterrupt):
        fill("train.updates=6")
    (tmp_path / "cache" / "states-000002-00000.safetensors").write_bytes(b"left by a kill before it was listed")
    (tmp_path / "cache" / ".states-000002-00000.safetensors.writing").write_bytes(b"half")
    assert read_header(tmp_path / "cache").rows == 16
    again = fill("train.updates=6")
    assert len(passes) == 11 + 16, "four micro-batches for each of the last four updates"
    assert (again.rows, again.tokens, again.covers) == (whole.rows, whole.tokens, whole.covers)
    assert len(again.files) == 6
    assert not list((tmp_path / "cache").glob(".states*"))


def test_what_the_objective_looks_at_is_what_is_kept(fill, cached):
    few = fill(MASKED, "train.updates=2")
    assert (few.positions, few.rows) == ("masked", 16)
    assert few.tokens < 0.2 * 16 * 32
    make_plan(cached(MASKED, "train.updates=2"), 1)
    with pytest.raises(Exception, match=r"objective\.0 \(cosine\): expected a cache of all positions, got one of masked positions alone"):
        make_plan(cached("objective=[{kind: cosine}]", "train.updates=2"), 1)
    with pytest.raises(Exception, match="expected all positions, as the objective asks, got masked ones alone; name another folder"):
        fill("objective=[{kind: cosine}]", "train.updates=2")
    assert fill(MASKED, "train.updates=2", positions="masked") == few


def test_what_cannot_be_filled_is_one_line(fill, cached, make_config, corpus, tmp_path, monkeypatch):
    with pytest.raises(LaunchError, match=r"teacher.mode: expected cached, and a folder, got neither; add teacher.mode=cached"):
        fill("teacher.mode=replicated", "teacher.cache=null")
    with pytest.raises(Exception, match=r"objective\.0 \(embedding_mse\): expected a teacher that gives embeddings, got a cached one"):
        fill("objective=[{kind: embedding_mse}]")
    assert not (tmp_path / "cache" / "cache.json").exists()
    fill("train.updates=1")
    with pytest.raises(LaunchError, match="expected states of precision bf16, got fp32; name another folder"):
        fill("train.updates=1", "teacher.precision=bf16")
    with FileLock(tmp_path / "cache" / ".filling"), pytest.raises(LaunchError, match="expected no other process that fills it, got one"):
        fill("train.updates=2")
    monkeypatch.setattr(teacher_cache, "disk_usage", lambda path: argparse.Namespace(free=4000))
    with pytest.raises(LaunchError, match=r"expected 3\d\.\d kB free for hidden states, got 4 kB; free space"):
        fill("train.updates=2")
    assert read_header(tmp_path / "cache").rows == 8


def test_a_mode_without_a_folder_and_a_folder_without_the_mode_are_refused(make_config):
    with pytest.raises(LaunchError, match=r"teacher.cache: expected a folder for mode: cached, got none; name one, and fill it"):
        make_config("teacher.mode=cached")
    with pytest.raises(LaunchError, match=r"teacher.cache: expected none with mode: zero3, got somewhere; set mode: cached, or drop it"):
        make_config("teacher.mode=zero3", "teacher.cache=somewhere")
