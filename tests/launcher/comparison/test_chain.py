"""A chain of runs: who teaches whom, and what is refused before the first starts. Whole chains: tests/runs/test_compare.py."""

from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.comparison import chain
from launcher.comparison.chain import Chain, check, plan
from launcher.config.load import load_config, load_settings
from launcher.errors import LaunchError


@pytest.fixture
def made(corpus) -> Callable[..., Chain]:
    """made(**links): a chain of tiny runs from the corpus' teacher of 4 layers."""

    def make(links: dict[str, list[str]], *settings: str) -> Chain:
        own = [f"data.shards={corpus.shards}", f"teacher.model={corpus.model}", "student.architecture=same"]
        return Chain.model_validate({"base": "tiny", "settings": [*own, *settings], "links": links})

    return make


def test_each_links_teacher_is_the_student_of_the_one_before(made, corpus, tmp_path: Path):
    links = plan(made({"half": [], "quarter": ["train.updates=5"]}), "x.yaml", tmp_path / "x y", ["train.clip=2.0"])
    assert [link.config.teacher.model for link in links] == [str(corpus.model), str(tmp_path / "x y" / "half" / "student")]
    assert [link.job.folder.name for link in links] == ["half", "quarter"]
    assert [link.job.updates for link in links] == [12, 5]
    assert {link.config.train.clip for link in links} == {2.0}
    for link in links:
        assert load_config(link.job.config, list(link.job.words)) == link.config
    check(links, "x.yaml")


def test_the_packaged_chain_halves_any_teacher_twice(corpus, tmp_path: Path):
    words = [f"data.shards={corpus.shards}", f"teacher.model={corpus.model}", "data.window_tokens=32"]
    links = plan(load_settings(Chain, "assistants", "chains"), "chain", tmp_path, words)
    assert len(links) == 2
    check(links, "chain")


@pytest.mark.parametrize(
    ("links", "message"),
    [
        ({"a": ["teacher.model=other"]}, "x.yaml: links.a: expected settings that are not decided for all runs, got teacher.model"),
        ({"a": ["run.folder=other"]}, "x.yaml: links.a: expected settings that are not decided for all runs, got run.folder"),
        ({"a": ["train.updates=many"]}, "x.yaml: links.a: train.updates: expected a whole number, got 'many'; correct it"),
        ({"a b": [], "a-b": []}, "x.yaml: links: expected names that differ in letters or digits, got a b and a-b; rename one"),
    ],
)
def test_links_that_make_no_chain_are_one_line(made, tmp_path: Path, links: dict[str, list[str]], message: str):
    with pytest.raises(LaunchError) as raised:
        plan(made(links), "x.yaml", tmp_path, [])
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_a_link_larger_than_its_teacher_is_found_before_anything_runs(made, tmp_path: Path):
    links = plan(made({"two": ["student.count=2"], "three": ["student.count=3"]}), "x.yaml", tmp_path, [])
    with pytest.raises(LaunchError, match=r"x\.yaml: links\.three: student\.count: expected at most 2, the teacher's layers, got 3"):
        check(links, "x.yaml")


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("objective=[{kind: relations, heads: 7}]", r"objective\.0 \(relations\)\.heads: expected a number that divides .* 32, got 7"),
        (
            "student={count: 1, width: 16, architecture: same}",
            r"objective\.2 \(cosine\): expected a student of the teacher's width 32, got 16",
        ),
        ("phases=[{name: a, trains: [layers 1]}]", r"phases\.0\.trains: expected ascending layers from 0 to 0, got layers 1"),
    ],
)
def test_a_link_whose_terms_or_phases_do_not_fit_is_found_before_anything_runs(made, tmp_path: Path, second: str, message: str):
    links = plan(made({"two": [], "one": [second]}), "x.yaml", tmp_path, [])
    with pytest.raises(LaunchError, match=rf"x\.yaml: links\.one: {message}"):
        check(links, "x.yaml")


def test_a_base_without_a_teacher_is_one_line(made, corpus, tmp_path: Path):
    alone = made({"a": []}, "teacher=null", "objective=[{kind: mlm}]", f"student.init={corpus.model}")
    with pytest.raises(LaunchError, match=r"x\.yaml: links\.a: expected a teacher, got teacher: null; name one in the base"):
        plan(alone, "x.yaml", tmp_path, [])


def test_unknown_keys_of_a_chain_file_are_one_line(write_yaml):
    with pytest.raises(LaunchError, match="lnks: unknown key; did you mean links"):
        load_settings(chain.Chain, write_yaml("base: tiny\nlinks: {a: []}\nlnks: {}"), "chains")
