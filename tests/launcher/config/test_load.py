"""The configuration from a user's side: what a file and a command line mean, and what comes back when they mean nothing."""

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from kd.terms import Term
from launcher.config.free_to_change import FREE_TO_CHANGE
from launcher.config.load import differences, dump_config, load_config, parse_config, public_values
from launcher.config.run_config import RunConfig
from launcher.config.task_config import TaskRunConfig
from launcher.config.yaml_file import PACKAGED
from launcher.errors import LaunchError

ROOT = Path(__file__).parents[3]
MINIMAL = """
run: {folder: runs/x}
data: {shards: shards/x}
teacher: {model: models/x}
objective: [{kind: mlm}]
train: {global_batch: 8, micro_batch: 2, updates: 3}
"""


def written(folder: Path, text: str | bytes) -> str:
    path = folder / "x.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def refusal(path: str, *overrides: str) -> str:
    """The message, without the file's folder."""
    with pytest.raises(LaunchError) as caught:
        load_config(path, list(overrides))
    return str(caught.value).replace(f"{os.path.dirname(path)}/", "")


def test_what_is_not_said_has_its_default(tmp_path: Path):
    made = load_config(written(tmp_path, MINIMAL))
    assert (made.train.clip, made.optimizer.betas, made.evaluate.batch, made.report.wandb) == (5.0, (0.9, 0.98), 32, "off")
    assert made.name == "x"


def test_a_run_is_called_as_it_says_or_as_its_folder(tmp_path: Path):
    path = written(tmp_path, MINIMAL)
    assert load_config(path, ["run.name=mine"]).name == "mine"
    assert load_config(path, [f"run.folder={tmp_path}/runs/y/"]).name == "y"
    assert load_config(path, ["run.folder=."]).name == Path.cwd().name


def test_settings_of_the_command_line_win_in_their_order(tmp_path: Path):
    made = load_config(written(tmp_path, MINIMAL), ["train.updates=5", "train.updates=7", "student.layers=[0, 2]", "data.masking.rate=0.2"])
    assert (made.train.updates, made.student.layers, made.data.masking.rate) == (7, [0, 2], 0.2)


def test_a_list_is_reached_by_number(tmp_path: Path):
    path = written(tmp_path, MINIMAL)
    assert load_config(path, ["objective.0.weight=3"]).objective[0].weight == 3.0
    assert load_config(path, ["objective.0={kind: soft_targets, temperature: 4}"]).objective[0].kind == "soft_targets"
    assert refusal(path, "objective.1.weight=3") == "objective.1.weight: expected a number from 0 to 0, got 1; correct the key"
    assert refusal(path, "objective.²=3") == "objective.²: expected a number from 0 to 0, got ²; correct the key"


def test_a_setting_below_nothing_makes_its_parent(tmp_path: Path):
    path = written(tmp_path, MINIMAL.replace("teacher: {model: models/x}", "teacher: null"))
    assert load_config(path, ["teacher.model=models/y"]).teacher.model == "models/y"


@pytest.mark.parametrize(
    ("text", "value"),
    [("3e-4", 3e-4), ("3.e-4", 3e-4), ("0.0003", 3e-4), (".3E-3", 3e-4), ("1", 1.0), ("0x10", 16.0), ("1_0.5", 10.5)],
)
def test_a_learning_rate_may_be_written_as_people_do(tmp_path: Path, text: str, value: float):
    assert load_config(written(tmp_path, MINIMAL), [f"optimizer.learning_rate={text}"]).optimizer.learning_rate == value


def test_tokens_may_be_written_as_a_power_of_ten(tmp_path: Path):
    made = load_config(written(tmp_path, MINIMAL), ["train.updates=null", "train.tokens=1e9"])
    assert made.train.tokens == 10**9
    assert isinstance(made.train.tokens, int)


def test_numbers_that_yaml_1_1_reads_with_another_base_are_words(tmp_path: Path):
    made = load_config(written(tmp_path, MINIMAL + "report: {tags: [010, 12:30, 1:30.5]}"), ["run.name=007"])
    assert (made.run.name, made.report.tags) == ("007", ["010", "12:30", "1:30.5"])


def test_the_users_folder_may_be_written_as_in_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/me")
    made = load_config(written(tmp_path, MINIMAL.replace("models/x", "~/models/x")), ["run.folder=~/runs/x", "run.name=~"])
    assert (made.teacher.model, made.run.folder, made.run.name) == ("/home/me/models/x", "/home/me/runs/x", None)


def test_an_override_leaves_other_places_of_an_alias_alone(tmp_path: Path):
    phases = "phases: [{name: a, share: 0.5, objective: &o [{kind: mlm}]}, {name: b, objective: *o}]"
    made = load_config(written(tmp_path, f"{MINIMAL}\n{phases}"), ["phases.0.objective.0.weight=3"])
    assert [phase.objective[0].weight for phase in made.phases] == [3.0, 1.0]


def test_off_is_a_word(tmp_path: Path):
    assert load_config(written(tmp_path, MINIMAL + "report: {wandb: off}")).report.wandb == "off"


def test_a_date_is_a_word_and_credentials_do_not_show(tmp_path: Path):
    made = load_config(written(tmp_path, MINIMAL), ["run.name=2026-11-24", "data.shards=https://me:pa55@host/x?token=abc&part=1"])
    assert made.run.name == "2026-11-24"
    assert made.data.shards == "https://me:pa55@host/x?token=abc&part=1"
    assert public_values(made)["data"]["shards"] == "https://***@host/x?token=***&part=1"
    assert "pa55" not in dump_config(made)
    assert "abc" not in dump_config(made)


@pytest.mark.parametrize("path", sorted(PACKAGED.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_packaged_configuration_is_good_and_survives_a_round_trip(path: Path):
    made = load_config(path.stem)
    assert made == load_config(str(path))
    assert parse_config(dump_config(made), "again") == made
    assert path.read_text().startswith("# ")  # its first line says what it is for


def test_text_that_looks_like_something_else_is_still_text_in_the_copy(tmp_path: Path):
    words = [
        "no",
        "1e5",
        "1E-5",
        ".5e3",
        "12e4567",
        "7",
        "010",
        "1:30",
        "0x1f",
        "null",
        "2026-01-01",
        "~",
        "- a",
        "on: off",
        "ÿ 'q' #1",
        " ",
    ]
    made = load_config(written(tmp_path, MINIMAL), [f"report.tags={json.dumps(words)}", "run.name='3e7'", "train.clip=1e-10"])
    assert (made.report.tags, made.run.name, made.train.clip) == (words, "3e7", 1e-10)
    assert parse_config(dump_config(made), "again") == made


def test_a_section_may_be_written_once_and_used_twice(tmp_path: Path):
    text = MINIMAL.replace("[{kind: mlm}]", "[&term {kind: mlm, weight: 2}, {<<: *term, positions: all}, {<<: *term, weight: 3}]")
    assert [(term.weight, term.positions) for term in load_config(written(tmp_path, text)).objective] == [
        (2.0, "masked"),
        (2.0, "all"),
        (3.0, "masked"),
    ]


def test_the_papers_configuration_holds_the_papers_numbers():
    """DistilBERT's own training code: transformers, examples/research_projects/distillation."""
    made = load_config("distilbert")
    terms = {term.kind: term for term in made.objective}
    assert {kind: term.weight for kind, term in terms.items()} == {"soft_targets": 5.0, "mlm": 2.0, "cosine": 1.0}
    assert {kind: term.positions for kind, term in terms.items()} == {"soft_targets": "all", "mlm": "masked", "cosine": "all"}
    assert terms["soft_targets"].temperature == 2.0
    rates = made.optimizer
    assert (rates.learning_rate, rates.betas, rates.epsilon, rates.weight_decay) == (5e-4, (0.9, 0.98), 1e-6, 0.0)
    assert (rates.schedule, rates.warmup, rates.final_share) == ("linear", 0.05, 0.0)
    assert (made.train.clip, made.train.epochs, made.train.micro_batch, made.train.global_batch) == (5.0, 3.0, 5, 5 * 50 * 8)
    masks = made.data.masking
    assert (masks.policy, masks.rate, masks.smoothing, masks.mask_share, masks.random_share) == ("frequency", 0.15, 0.7, 0.8, 0.1)
    assert (made.data.window_tokens, made.data.packing) == (512, "documents")
    assert made.teacher is not None
    assert (made.teacher.model, made.student.init, made.student.layers) == ("bert-base-uncased", "teacher", "distilbert")
    assert (made.student.architecture, made.student.copy_head, made.student.fold_token_type) == ("distilbert", False, False)
    assert made.student.freeze_positions


def test_a_file_of_that_name_comes_before_the_packaged_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "demo").write_text(MINIMAL)
    monkeypatch.chdir(tmp_path)
    assert load_config("demo").run.folder == "runs/x"


def test_a_dump_says_every_setting_in_a_stable_order(tmp_path: Path):
    made = load_config(written(tmp_path, MINIMAL))
    values = yaml.safe_load(dump_config(made))
    assert list(values) == list(RunConfig.model_fields)
    assert list(values["train"]) == list(type(made.train).model_fields)
    assert dump_config(made) == dump_config(load_config(written(tmp_path, dump_config(made))))


def test_differences_are_one_line_a_setting(tmp_path: Path):
    path = written(tmp_path, MINIMAL)
    before = load_config(path)
    after = load_config(
        path, ["train.clip=1", "objective=[{kind: mlm, weight: 2}, {kind: cosine}]", "report.tags=[a]", "optimizer.schedule=cosine"]
    )
    assert differences(before, after, ignoring=("report",)) == [
        "objective.0.weight: 1.0 -> 2.0",
        "train.clip: 5.0 -> 1.0",
        "optimizer.schedule: linear -> cosine",
        "objective.1.kind: absent -> cosine",
        "objective.1.weight: absent -> 1.0",
        "objective.1.layer_map: absent -> final",
        "objective.1.projection: absent -> none",
        "objective.1.positions: absent -> all",
    ]
    assert differences(before, before) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.yaml: expected keys and values, got nothing; see configs/"),
        ("[1, 2]", "x.yaml: expected keys and values, got list; see configs/"),
        ("a: b: c", "x.yaml: expected YAML, got line 1: mapping values are not allowed here; correct it"),
        ("run: {folder: a}\nrun: {folder: b}", "x.yaml: expected YAML, got line 2: run stands twice; correct it"),
        ("run:\n  folder: a\n  folder: b", "x.yaml: expected YAML, got line 3: folder stands twice; correct it"),
        ("? [1, 2]\n: 3", "x.yaml: expected YAML, got line 1: a key that is not a word; correct it"),
        ("a: &a [*a]", "x.yaml: expected a configuration, got more than 10,000 values or 20 levels; correct it"),
        ("[" * 100_000, "x.yaml: expected YAML, got brackets nested too deeply; correct it"),
        ("#" * (1 << 20) + "\n", "x.yaml: expected a configuration of at most 1,048,576 bytes, got more; check the path"),
        (b"a\xff", "x.yaml: expected UTF-8, got byte 0xff at offset 1; convert it"),
        ("run: {folder: !!binary aGk=}", "x.yaml: run.folder: expected text, a number, true, false or null, got bytes; correct it"),
        ('run: {folder: "a\\0b"}', "x.yaml: run.folder: expected text, got 'a\\x00b'; correct it"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_configuration_is_one_line(tmp_path: Path, text: str | bytes, message: str):
    assert refusal(written(tmp_path, text)) == message


def test_nothing_in_a_file_is_executed(tmp_path: Path):
    path = written(tmp_path, f"run: !!python/object/apply:pathlib.Path.touch [{tmp_path}/made]")
    assert "could not determine a constructor" in refusal(path)
    assert not (tmp_path / "made").exists()


def test_aliases_that_unfold_to_billions_of_values_are_refused(tmp_path: Path):
    levels = "\n".join(f"k{n}: &k{n} [{', '.join([f'*k{n - 1}'] * 9)}]" for n in range(1, 12))
    assert "more than 10,000 values" in refusal(written(tmp_path, f"k0: &k0 [x]\n{levels}"))


def test_a_missing_file_is_one_line_that_names_the_ready_ones(tmp_path: Path):
    for path in ("nope", "nope.yaml", str(tmp_path / "nope.yaml"), ""):
        message = refusal(path)
        assert "expected a configuration file, got none there" in message
        assert "demo, " in message
    assert refusal(str(tmp_path)).endswith("expected a readable YAML file, got Is a directory; check it")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.updates", "train.updates: expected key=value, got no value; write it as train.updates=100"),
        ("=3", "=3: expected key=value, got no key; write it as train.updates=100"),
        ("train..updates=3", "train..updates=3: expected key=value, got no key; write it as train.updates=100"),
        ("train.updates=[1", "train.updates=[1: expected a YAML value, got expected ',' or ']', but got '<stream end>'; quote it"),
        ("run.folder.x=3", "run.folder.x: expected settings that hold x, got runs/x; correct the key"),
    ],
)
def test_a_setting_of_the_command_line_that_cannot_be_is_one_line(tmp_path: Path, override: str, message: str):
    assert refusal(written(tmp_path, MINIMAL), override) == message


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["teacher=null"], "student.init: expected a model folder where there is no teacher, got teacher; name a folder or hub model"),
        (
            ["teacher=null", "student.init=models/y", "objective=[{kind: mlm}, {kind: cosine}, {kind: soft_targets}]"],
            "teacher: expected a teacher for cosine, soft_targets, got null; name one, or drop the term",
        ),
        (["objective.0.weight=0"], "objective: expected at least one term with a weight above 0, got none; raise one"),
    ],
)
def test_rooms_that_do_not_fit_are_one_line(tmp_path: Path, overrides: list[str], message: str):
    assert refusal(written(tmp_path, MINIMAL), *overrides) == f"command line: {message}"


def test_a_mistake_in_a_phase_is_not_told_as_a_missing_objective_too(tmp_path: Path):
    text = MINIMAL.replace("objective: [{kind: mlm}]", "phases: [{name: a, trains: [], objective: [{kind: mlm}]}]")
    assert text != MINIMAL
    assert refusal(written(tmp_path, text)) == "x.yaml: phases.0.trains: expected at least 1 item, got 0; correct it"


def test_a_mistake_inside_a_list_of_the_command_line_is_that_lines(tmp_path: Path):
    message = refusal(written(tmp_path, MINIMAL), "objective=[{kind: task_loss}]")
    assert message.startswith("command line: objective.0.kind: expected a term on text, got task_loss")


def test_a_folder_that_is_called_teacher_is_named_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "teacher").mkdir()
    assert refusal(written(tmp_path, MINIMAL), "teacher=null").endswith("got teacher; write ./teacher for the folder of that name")


def test_a_term_without_weight_asks_for_no_teacher(tmp_path: Path):
    objective = "objective=[{kind: mlm}, {kind: cosine, weight: 0}]"
    assert load_config(written(tmp_path, MINIMAL), ["teacher=null", "student.init=models/y", objective]).teacher is None


KEYS = st.sampled_from([*RunConfig.model_fields, "kind", "weight", "model", "folder", "layers", "updates"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=20,
)
FILES = st.binary(max_size=80) | st.text(max_size=80).map(str.encode) | VALUES.map(lambda value: yaml.dump(value).encode())
PLACES = st.sampled_from(["objective.0.weight", "train", "train.updates", "student.layers.0", "x", "teacher.model.y"])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FILES, st.lists(st.tuples(PLACES, st.text(max_size=6)), max_size=2))
def test_whatever_a_file_holds_the_answer_is_a_configuration_or_a_refusal(tmp_path: Path, data: bytes, places: list[tuple[str, str]]):
    with contextlib.suppress(LaunchError):
        assert isinstance(load_config(written(tmp_path, data), [f"{key}={value}" for key, value in places]), RunConfig)


def test_a_flipped_byte_in_a_good_file_is_read_or_refused(tmp_path: Path):
    good = (PACKAGED / "tiny.yaml").read_bytes()
    for place in range(0, len(good), 5):
        flipped = bytearray(good)
        flipped[place] ^= 1 << (place % 8)
        with contextlib.suppress(LaunchError):
            assert isinstance(load_config(written(tmp_path, bytes(flipped))), RunConfig)


def models(annotation: object) -> Iterator[type[BaseModel]]:
    """The models in an annotation, in their order."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models(part)


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every setting but the objective's, and its default as the documents write it."""
    for name, field in model.model_fields.items():
        inner = list(models(field.annotation)) if name != "objective" else []
        if inner:
            yield from leaves(inner[-1], f"{prefix}{name}.")  # the last: of one teacher and several, the settings of one of several
        elif name != "objective":
            plain = json.loads(json.dumps(field.default)) if not field.is_required() else None
            shown = plain if isinstance(plain, str) else json.dumps(plain)
            yield prefix + name, "*required*" if field.is_required() else f"`{shown}`"


def test_the_documents_have_every_setting_with_its_default_and_whether_it_may_change():
    rows = re.findall(
        r"^\| `([a-z_.]+\.[a-z0-9_.]+|teacher_mixing)` \| ([^|]+) \| (✓ )?\|", (ROOT / "docs" / "configuration.md").read_text(), re.M
    )
    free = [key for key, _ in leaves(RunConfig) if any(f"{key}.".startswith(f"{prefix}.") for prefix in FREE_TO_CHANGE)]
    assert [(key, default) for key, default, _ in rows] == list(leaves(RunConfig))
    assert [key for key, _, mark in rows if mark] == free


def test_the_documents_have_every_setting_of_a_task():
    pages = {name: (ROOT / "docs" / f"{name}.md").read_text() for name in ("configuration", "tasks", "tasks-data")}
    assert "tasks-data.md#settings" in pages["configuration"].partition("### data and evaluate of a task")[2]
    shared = set(re.findall(r"^\| `([a-z0-9_.]+)` \|", pages["configuration"], re.M))
    scored = set(re.findall(r"^\| `(evaluate\.\w+|data\.augment\.\w+)` \|", pages["tasks"], re.M))
    table = pages["tasks-data"].partition("\n## Settings")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    names = [name for cell in cells for name in re.findall(r"`([\w.]+)`", cell)]
    of_data = {f"data.columns{name}" if name.startswith(".") else f"data.{name}" for name in names}
    assert len(of_data) > 30
    for key, _ in leaves(TaskRunConfig):
        group = key.split(".")[0]
        known = of_data | scored if group == "data" else shared | scored
        name = "data.unlabelled_columns" if key.startswith("data.unlabelled_columns.") else key
        assert name in known, key


def plain(values: dict) -> dict:
    return json.loads(json.dumps(values))


def test_what_the_documents_say_of_a_term_are_its_settings_and_defaults():
    """A new term needs no row to work (CONTRIBUTING.md): its class documents it."""
    terms = {term.model_fields["kind"].default: term for term in get_args(get_args(Term)[0])}
    table = (ROOT / "docs" / "configuration.md").read_text().partition("\n### objective")[2].partition("\n### ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", table.partition("\n| --- ")[2], re.M))
    assert len(rows) >= 15
    for kind, row in rows.items():
        term = terms[kind]
        defaults = {name: field.default for name, field in term.model_fields.items() if name not in ("kind", "weight", "teacher")}
        own = {name: yaml.dump(value, default_flow_style=True).removesuffix("...\n").strip() for name, value in plain(defaults).items()}
        assert dict(re.findall(r"`(\w+)` \(`([^`]+)`\)", row)) == own
        assert term.model_fields["weight"].default == 1.0


def test_terms_on_labels_have_no_place_in_pretraining(tmp_path: Path):
    path = written(tmp_path, MINIMAL)
    assert refusal(path, "objective=[{kind: soft_targets, alpha: 0.5}]").endswith(
        "objective.0.positions: expected masked with alpha above 0, for labels stand there alone, got all; set masked, or add mlm"
    )
    assert "objective.0.kind: expected a term on text, got task_loss" in refusal(path, "objective=[{kind: task_loss}]")
    assert load_config(path, ["objective=[{kind: soft_targets, alpha: 0.5, positions: masked}]"]).terms
