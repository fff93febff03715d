"""A comparison file: what its runs are, and everything that is refused before one of them starts."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.comparison import settings
from launcher.comparison.settings import Comparison, base_config, check_folder, folder_name, plan, write_base_config
from launcher.config.load import differences, dump_config, load_config, public_values
from launcher.config.yaml_file import PACKAGED
from launcher.errors import LaunchError

NAMES = sorted(path.stem for path in (PACKAGED / "compare").glob("*.yaml"))
VARIANTS = {"every other": ["student.layers=every_other"], "last": ["student.layers=last", "optimizer.learning_rate=2e-3"]}


@pytest.fixture
def made(corpus) -> Callable[..., Comparison]:
    """made(**keys): a comparison of tiny runs on the corpus."""

    def make(**keys: object) -> Comparison:
        own = {"base": "tiny", "settings": [f"data.shards={corpus.shards}", f"teacher.model={corpus.model}"]}
        return Comparison.model_validate(own | {"seeds": [1, 2], "tokens": 5000, "variants": VARIANTS} | keys)

    return make


def refused(action: Callable[[], object]) -> str:
    """The one line of a LaunchError."""
    with pytest.raises(LaunchError) as raised:
        action()
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("name", NAMES)
def test_every_packaged_comparison_makes_valid_runs_for_both_budgets(name: str, tmp_path: Path, corpus):
    own = [f"data.shards={corpus.shards}", f"teacher.model={corpus.model}"]
    for budget in ("tokens", "time"):
        found = settings.load(name, budget, None)
        runs = plan(found, name, tmp_path / name, budget, own)
        assert len(runs) == len(found.variants) * len(found.seeds)
        assert found.compared_with in found.variants
        assert len({run.job.folder for run in runs}) == len(runs)
    text = (PACKAGED / "compare" / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# "), "the first line says what is compared"


def test_runs_differ_in_their_variant_and_seed_alone_and_all_get_the_budget(made, tmp_path: Path):
    runs = plan(made(), "x.yaml", tmp_path / "x", "tokens", ["train.clip=2.0"])
    assert [(run.variant, run.seed) for run in runs] == [("every other", 1), ("last", 1), ("every other", 2), ("last", 2)]
    assert [str(run.job.folder.relative_to(tmp_path)) for run in runs[:2]] == ["x/tokens/every-other/seed-1", "x/tokens/last/seed-1"]
    assert {run.config.train.tokens for run in runs} == {5000}
    assert {run.config.train.updates for run in runs} == {None}
    assert {run.config.train.clip for run in runs} == {2.0}
    assert [(run.config.train.seed, run.config.data.seed) for run in runs] == [(1, 1), (1, 1), (2, 2), (2, 2)]
    assert {run.job.updates for run in runs} == {20}, "ceil(5000 / (8 windows x 32 positions))"
    assert differences(runs[0].config, runs[1].config, ignoring=("run",)) == [
        "student.layers: every_other -> last",
        "optimizer.learning_rate: 0.001 -> 0.002",
    ]
    for run in runs:
        again = load_config(run.job.config, list(run.job.words))
        assert again == run.config, "the words that a run is started with say what was planned"


def test_with_a_budget_of_time_each_variant_has_its_own_number_of_updates(made, tmp_path: Path):
    runs = plan(made(seconds=3.0), "x.yaml", tmp_path, "time", [], {"every other": 7, "last": 9})
    assert [run.job.updates for run in runs] == [7, 9, 7, 9]
    assert [run.config.train.updates for run in runs] == [7, 9, 7, 9]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["student.layers=middle"], "x.yaml: variants.odd: student.layers: expected"),
        (["student.layrs=last"], "x.yaml: variants.odd: student.layrs: unknown key; did you mean layers?"),
        (["student.layers"], "x.yaml: variants.odd: student.layers: expected key=value, got no value"),
        (["student.layers=every_other"], "x.yaml: variants: expected different runs, got the same one for every other and odd; drop one"),
        (["train.tokens=9"], "variants.odd: expected settings that are not decided for all runs, got train.tokens; leave it out"),
        (["train={global_batch: 8, micro_batch: 2, updates: 3}"], "got train; leave it out"),
        (["run.folder=elsewhere"], "got run.folder; leave it out"),
        (["data.seed=5"], "got data.seed; leave it out"),
    ],
)
def test_a_variant_that_is_no_run_of_this_comparison_is_one_line(made, tmp_path: Path, words: list[str], message: str):
    odd = made(variants=VARIANTS | {"odd": words})
    assert message in refused(lambda: plan(odd, "x.yaml", tmp_path, "tokens", []))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: tiny\nvariants: {a: [], b: []}\ntokens: 10\nsedes: [1]", "sedes: unknown key; did you mean seeds?"),
        ("base: tiny\nvariants: {a: []}\ntokens: 10", "variants: expected at least 2"),
        (
            "base: tiny\nvariants: {a: [], b: []}\ntokens: 10\nseeds: [1, 1]",
            "seeds: expected different seeds, got [1, 1]; drop the repeated",
        ),
        ("base: tiny\nvariants: {a: [], b: []}\ntokens: 10\nreference: c", "reference: expected one of a, b, got c; correct it"),
        (
            "base: tiny\nvariants: {a b: [], a-b: []}\ntokens: 10",
            "variants: expected names that differ in letters or digits, got a b and a-b",
        ),
        ("base: tiny\nvariants: {a: [], b: []}\ntokens: many", "tokens: expected a whole number"),
        ("base: tiny\nvariants: {a: [], b: []}\nseconds: 3", "tokens: expected a number for --budget tokens, got none"),
        ("base: tiny\ntokens: 10", "variants: expected a value, got none; add it"),
    ],
)
def test_a_file_that_is_no_comparison_is_one_line(write_yaml, text: str, message: str):
    path = write_yaml(text)
    said = refused(lambda: settings.load(path, "tokens", None))
    assert said.startswith(path)
    assert message in said


def test_an_amount_on_the_command_line_replaces_the_files(write_yaml):
    path = write_yaml("base: tiny\nvariants: {a: [], b: []}\nseconds: 3")
    assert settings.load(path, "tokens", 2e4).tokens == 20_000
    assert settings.load(path, "time", 7.5).seconds == 7.5


def test_a_base_that_is_nowhere_and_a_setting_that_is_wrong_are_one_line(made, tmp_path: Path):
    said = refused(lambda: base_config(made(base="nowhere"), [], "x.yaml"))
    assert said.startswith("x.yaml: settings: nowhere: expected a configuration file, got none there")
    assert refused(lambda: base_config(made(), ["train.clap=1"], "x.yaml")).startswith("x.yaml: settings: train.clap: unknown key")


def test_a_folder_takes_more_seeds_and_variants_but_no_other_comparison(made, tmp_path: Path):
    root = tmp_path / "x"
    first = made()
    runs = plan(first, "x.yaml", root, "tokens", [])
    check_folder(root, base_config(first, [], "x.yaml"), runs)
    root.mkdir()
    write_base_config(root, base_config(first, [], "x.yaml"))
    for run in runs:
        run.job.folder.mkdir(parents=True)
        (run.job.folder / "config.yaml").write_text(dump_config(run.config), encoding="utf-8")
    more = made(seeds=[3, 1, 2], variants={"new": ["train.clip=1.0"], **VARIANTS})
    check_folder(root, base_config(more, [], "x.yaml"), plan(more, "x.yaml", root, "tokens", []))

    other = made(settings=[*first.settings, "optimizer.weight_decay=0.5"])
    said = refused(lambda: check_folder(root, base_config(other, [], "x.yaml"), plan(other, "x.yaml", root, "tokens", [])))
    assert said == (
        f"{root}: expected the folder of this comparison, got that of another (optimizer.weight_decay: 0.0 -> 0.5); choose another --folder"
    )
    longer = made(tokens=6000)
    said = refused(lambda: check_folder(root, base_config(longer, [], "x.yaml"), plan(longer, "x.yaml", root, "tokens", [])))
    assert "train.tokens: 5000 -> 6000" in said
    changed = made(variants=VARIANTS | {"last": ["student.layers=first"]})
    said = refused(lambda: check_folder(root, base_config(changed, [], "x.yaml"), plan(changed, "x.yaml", root, "tokens", [])))
    assert "expected the run that variant last is now, got another (student.layers: last -> first; " in said
    assert "rename the variant" in said


def test_names_become_folders_without_surprises():
    assert [folder_name(name) for name in ("every other", "T = 2.5", "../up", "größe")] == ["every-other", "T-2.5", "up", "größe"]


def test_the_words_of_a_run_survive_being_written_and_read(made, tmp_path: Path):
    """A folder with a blank and a colon is still one YAML value."""
    runs = plan(made(), "x.yaml", tmp_path / "a: b #c", "tokens", [])
    assert runs[0].config.run.folder == str(runs[0].job.folder)
    assert json.loads(json.dumps(public_values(runs[0].config)))["run"]["name"] == "a: b #c: every other, seed 1"
