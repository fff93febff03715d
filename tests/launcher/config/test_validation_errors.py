"""What pydantic finds, in one line each that says what to do."""

from pathlib import Path
from typing import get_args

import pytest

from kd.terms import Term
from kd.training.settings import TrainSettings
from launcher.config.load import load_config
from launcher.config.other_names import OTHER_NAMES, SETTINGS
from launcher.config.run_config import RunConfig
from launcher.config.validation_errors import _paths
from launcher.errors import LaunchError

KINDS = " or ".join(term.model_fields["kind"].default for term in get_args(get_args(Term)[0]))
POLICIES = "'every_other', 'distilbert', 'first', 'last', 'spread' or 'random'"
MINIMAL = """
run: {folder: runs/x}
data: {shards: shards/x}
teacher: {model: models/x}
objective: [{kind: mlm}, {kind: soft_targets}]
train: {global_batch: 8, micro_batch: 2, updates: 3}
"""


def found(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(LaunchError) as caught:
        load_config(str(path), list(overrides))
    return str(caught.value).replace(f"{tmp_path}/", "").splitlines()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.globl_batch=3", "train.globl_batch: unknown key; did you mean global_batch?"),
        ("train.wandbb=off", "train.wandbb: unknown key; did you mean report.wandb?"),
        ("trian.clip=3", "trian: unknown key; did you mean train?"),
        ("train.learning_rate=3", "train.learning_rate: unknown key; did you mean optimizer.learning_rate?"),
        ("train.x=3", f"train.x: unknown key; known here: {', '.join(TrainSettings.model_fields)}"),
        ("rate=0.2", "rate: unknown key; did you mean data.masking.rate?"),
        ("data.masking.polcy=token", "data.masking.polcy: unknown key; did you mean policy?"),
        ("teacher.mod=zero3", "teacher.mod: unknown key; did you mean mode?"),
        ("objective.1.temprature=3", "objective.1.temprature: unknown key; did you mean temperature?"),
        ("objective.0.temperature=3", "objective.0.temperature: unknown key; known here: kind, weight, teacher, positions"),
        ("objective.0.kind=mml", f"objective.0.kind: expected {KINDS}, got mml; did you mean mlm?"),
        ("objective.0.kind=xyz", f"objective.0.kind: expected {KINDS}, got xyz; correct it"),
        ("objective.0={weight: 2}", "objective.0.kind: expected a value, got none; add it"),
        ("objective.0=3", "objective.0: expected settings of its own, got 3; correct it"),
        ("objective=3", "objective: expected a list, got 3; correct it"),
        ("objective=[]", "objective: expected a value, got none; add it"),
        ("train=5", "train: expected settings of its own, got 5; correct it"),
        ("train.micro_batch=many", "train.micro_batch: expected a whole number, got 'many'; correct it"),
        ("train.micro_batch=2.5", "train.micro_batch: expected a whole number, got 2.5; correct it"),
        ("train.micro_batch=true", "train.micro_batch: expected a whole number, got true; correct it"),
        ('train.micro_batch="2"', "train.micro_batch: expected a whole number, got '2'; remove the quotes"),
        ("train.clip='1e-4'", "train.clip: expected a number, got '1e-4'; remove the quotes"),
        ("train.micro_batch=010", "train.micro_batch: expected a whole number, got '010'; correct it"),
        ("train.micro_batch=1:30", "train.micro_batch: expected a whole number, got '1:30'; correct it"),
        ("train.clip=1:30.5", "train.clip: expected a number, got '1:30.5'; correct it"),
        ("run.name=42", """run.name: expected text, got 42; put it in quotes, as '"…"' for a shell"""),
        ("train.micro_batch=null", "train.micro_batch: expected a whole number, got null; correct it"),
        ("train.micro_batch=[2]", "train.micro_batch: expected a whole number, got a list; correct it"),
        ("train.micro_batch={a: 2}", "train.micro_batch: expected a whole number, got settings; correct it"),
        ("train.activation_checkpointing=yes", "train.activation_checkpointing: expected true or false, got 'yes'; correct it"),
        ("train.zero_stage=7", "train.zero_stage: expected 0, 1, 2 or 3, got 7; correct it"),
        ("train.clip=-1", "train.clip: expected greater than or equal to 0, got -1; correct it"),
        ("optimizer.learning_rate=.inf", "optimizer.learning_rate: expected a finite number, got inf; correct it"),
        ("optimizer.learning_rate=.nan", "optimizer.learning_rate: expected a finite number, got nan; correct it"),
        ("optimizer.betas=[0.9]", "optimizer.betas.1: expected a value, got none; add it"),
        ("optimizer.betas=[0.9, 0.9, 0.9]", "optimizer.betas: expected at most 2 items, got 3; correct it"),
        ("run.folder=", "run.folder: expected text, got null; correct it"),
        ("run.folder=''", "run.folder: expected at least 1 character, got ''; correct it"),
        ("student.layers=most", f"student.layers: expected {POLICIES} or a list, got 'most'; correct it"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_one_line_that_blames_the_command_line(tmp_path: Path, override: str, message: str):
    assert found(tmp_path, MINIMAL, override) == [f"command line: {message}"]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["train.micro_batch=3"], "command line: train: expected global_batch to be a multiple of micro_batch, got 8 and 3; change either"),
        (["train.clip=1"], "x.yaml: train: expected global_batch to be a multiple of micro_batch, got 8 and 3; change either"),
        (
            ["train.tokens=3", "train.updates=4"],
            "command line: train: expected exactly one of updates, tokens and epochs, got updates, tokens; keep one",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_one_line_that_blames_who_gave_them(tmp_path: Path, overrides: list[str], line: str):
    text = MINIMAL.replace("micro_batch: 2", "micro_batch: 3") if line.startswith("x.yaml") else MINIMAL
    assert found(tmp_path, text, *overrides) == [line]


@pytest.mark.parametrize(("length", "left"), [("train.tokens=300", "tokens"), ("train.epochs=2", "epochs"), ("train.updates=9", "updates")])
def test_a_length_of_the_command_line_replaces_the_files_and_says_so(tmp_path: Path, length: str, left: str):
    (tmp_path / "x.yaml").write_text(MINIMAL.replace("updates: 3", "epochs: 5" if left == "updates" else "updates: 3"))
    notes: list[str] = []
    train = load_config(str(tmp_path / "x.yaml"), [length], note=notes.append).train
    assert [name for name in ("updates", "tokens", "epochs") if getattr(train, name) is not None] == [left]
    was = "train.epochs: 5" if left == "updates" else "train.updates: 3"
    assert notes == [f"{length} of the command line replaces {was} of the file"]
    assert load_config(str(tmp_path / "x.yaml"), ["train.seed=2"], note=notes.append).train.seed == 2
    assert len(notes) == 1


@pytest.mark.parametrize(
    ("word", "setting"),
    [
        ("train.batch_size", "train.micro_batch"),
        ("train.lr", "optimizer.learning_rate"),
        ("optimizer.warmup_ratio", "optimizer.warmup"),
        ("train.gradient_accumulation_steps", "train.global_batch"),
        ("student.num_layers", "student.count"),
        ("student.hidden_size", "student.width"),
        ("student.intermediate_size", "student.inner"),
        ("train.max_grad_norm", "train.clip"),
        ("train.gradient_checkpointing", "train.activation_checkpointing"),
        ("train.steps", "train.updates"),
        ("optimizer.max_update", "train.updates"),
        ("train.accumulate_grad_batches", "train.global_batch"),
    ],
)
def test_words_of_other_libraries_lead_to_the_setting_here(tmp_path: Path, word: str, setting: str):
    assert found(tmp_path, MINIMAL, f"{word}=1") == [f"command line: {word}: unknown key; did you mean {setting}?"]


def test_every_setting_that_has_another_name_exists_and_no_other_name_is_a_setting():
    known = set(_paths(RunConfig))
    assert set(OTHER_NAMES) <= known
    assert len(SETTINGS) == sum(len(names) for names in OTHER_NAMES.values()), "a word stands twice"
    assert not [name for name, setting in SETTINGS.items() if name in {path.rpartition(".")[2] for path in known}]


def test_a_number_where_a_file_needs_text_is_to_be_quoted(tmp_path: Path):
    line = "x.yaml: run.folder: expected text, got 2026; put it in quotes"
    assert found(tmp_path, MINIMAL.replace("folder: runs/x", "folder: 2026")) == [line]


def test_a_number_of_layers_has_its_own_setting(tmp_path: Path):
    assert found(tmp_path, MINIMAL, "student.layers=3") == [
        "command line: student.layers: expected a policy or a list of layers, got 3; for 3 layers set student.count=3",
    ]


def test_a_section_that_the_command_line_made_is_its_own(tmp_path: Path):
    assert found(tmp_path, MINIMAL, "optimizer.warmup=2.5", "student.layers=[0, 9, 2]") == [
        "command line: student.layers: expected an ascending list of different layers from 0, got [0, 9, 2]; sort it",
        "command line: optimizer.warmup: expected a share below 1 or a whole number of updates, got 2.5",
    ]


def test_every_mistake_is_told_at_once_and_each_where_it_is(tmp_path: Path):
    text = MINIMAL.replace("updates: 3", "updats: 3") + "optimiser: {}"
    assert found(tmp_path, text, "train.clip=x", "objective.0.weight=-1") == [
        "command line: objective.0.weight: expected greater than or equal to 0, got -1; correct it",
        "command line: train.clip: expected a number, got 'x'; correct it",
        "x.yaml: train.updats: unknown key; did you mean updates?",
        "x.yaml: optimiser: unknown key; did you mean optimizer?",
    ]


def test_what_is_missing_is_named(tmp_path: Path):
    assert found(tmp_path, "run: {}\nteacher: {mode: zero3}\ntrain: {updates: 3}") == [
        f"x.yaml: {key}: expected a value, got none; add it"
        for key in ("run.folder", "data", "teacher.model", "objective", "train.global_batch", "train.micro_batch")
    ]


def test_a_long_wrong_value_is_cut(tmp_path: Path):
    (line,) = found(tmp_path, MINIMAL, f"train.seed={'x' * 1000}")
    assert line == f"command line: train.seed: expected a whole number, got '{'x' * 58}…; correct it"
