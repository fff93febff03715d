"""The door for people: help at once, mistakes in one line, code 2, no traceback."""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from data_shards.errors import DataError
from kd.errors import KdError
from launcher import cli
from launcher.commands.common import at_least, share
from launcher.commands.parser import parser
from launcher.config import presets
from launcher.config.run_config import RunConfig
from launcher.config.yaml_file import PACKAGED
from launcher.errors import LaunchError
from launcher.process.error_exit import guarded

ROOT = Path(__file__).resolve().parents[2]
VERBS = [
    "",
    "demo",
    "plan",
    "train",
    "evaluate",
    "compare",
    "chain",
    "layers",
    "shards",
    "shards build",
    "shards verify",
    "shards info",
    "vocabulary",
    "vocabulary prune",
    "completion",
    "plot",
    "export",
    "predict",
    "calibrate",
    "latency",
    "advise",
    "push",
    "wandb-replay",
    "config",
    "config list",
    "config show",
    "config schema",
    "doctor",
    "cache",
]
HEAVY = ("torch", "transformers", "deepspeed", "datasets", "pydantic", "numpy", "rich", "yaml", "wandb")
ALL_HELP = f"""
import contextlib, io, json, sys
from launcher import cli
help = {{}}
for verb in {VERBS!r}:
    sys.argv = ["stillhouse", *verb.split(), "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
        cli.main()
    help[verb] = text.getvalue()
print(json.dumps([help, sorted(name for name in {HEAVY!r} if name in sys.modules)]))
"""


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], no_rank: None) -> Callable[..., str]:
    """fails(*words): the one line on stderr of `stillhouse words`, which must end with code 2."""

    def call(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["stillhouse", *words])
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert left.value.code == 2
        text = capsys.readouterr().err
        assert text.count("\n") == 1
        assert text.startswith("stillhouse")
        return text.rstrip("\n")

    return call


@pytest.fixture(scope="module")
def helped() -> tuple[dict[str, str], list[str]]:
    """Every verb's help, and which heavy packages a process that gave them all has imported."""
    done = subprocess.run(
        [sys.executable, "-c", ALL_HELP], capture_output=True, text=True, cwd=ROOT, check=True, env=os.environ | {"COLUMNS": "80"}
    )
    texts, imported = json.loads(done.stdout)
    return texts, imported


@pytest.mark.parametrize("verb", VERBS)
def test_every_verbs_help_shows_an_example_of_itself(helped: tuple[dict[str, str], list[str]], verb: str):
    text = helped[0][verb]
    assert text.startswith(f"usage: {f'stillhouse {verb}'.strip()} ")
    examples = text.partition("\nexample")[2]
    assert f"  stillhouse {verb}" in examples


@pytest.mark.parametrize("verb", VERBS)
def test_every_verbs_help_says_what_it_does_within_80_columns(helped: tuple[dict[str, str], list[str]], verb: str):
    text = helped[0][verb].partition("\nexample")[0]
    description = text.partition("\n\n")[2].partition("\n\n")[0]
    assert re.match(r"[A-Z].*\.$", " ".join(description.split())), text
    assert max(map(len, text.splitlines())) <= 80


def test_every_argument_of_every_verb_is_explained():
    parsers = [parser()]
    while parsers:
        at = parsers.pop()
        for action in at._actions:
            if isinstance(action.choices, dict):
                parsers += action.choices.values()
            else:
                assert action.help, f"{at.prog}: {action.option_strings or action.dest}"


def test_help_imports_nothing_heavy(helped: tuple[dict[str, str], list[str]]):
    assert helped[1] == []


def test_help_takes_less_than_a_second_of_the_processor():
    before = os.times()
    subprocess.run([sys.executable, "-m", "launcher.cli", "train", "--help"], stdout=subprocess.DEVNULL, cwd=ROOT, check=True)
    after = os.times()
    assert (after.children_user + after.children_system) - (before.children_user + before.children_system) < 1.0


def test_the_examples_of_the_help_are_understood():
    """Every example that starts with stillhouse is parsed by the parser that shows it."""
    found = 0
    for verb in VERBS:
        at = parser()
        for word in verb.split():
            at = next(action.choices[word] for action in at._actions if isinstance(action.choices, dict))
        for line in (at.epilog or "").splitlines():
            words = line.split("   ")[0].split() if line.startswith("  stillhouse ") else line.strip().partition("     ")[0].split()
            if words and words[0] == "stillhouse":
                assert parser().parse_args(words[1:]).verb == words[1]
                found += 1
    assert found >= 12


def test_without_a_verb_the_help_lists_every_verb_by_its_purpose(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys, "argv", ["stillhouse"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 0
    text = capsys.readouterr().out
    verbs = {line.split()[0] for line in text.partition("examples:")[0].splitlines() if line.startswith("  ") and line[2].islower()}
    assert verbs == set(cli.MODULES)
    for group in ("data:", "train:", "compare:", "check and report:"):
        assert f"\n{group}\n" in text
    assert max(map(len, text.partition("examples:")[0].splitlines())) <= 80


def test_every_packaged_configuration_is_listed_and_shown_as_it_is(capsys: pytest.CaptureFixture[str]):
    files = sorted(PACKAGED.rglob("*.yaml"))
    assert presets.run(parser().parse_args(["config", "list"])) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line[2:3].strip() and line.startswith("  ")]
    assert sorted(listed) == sorted(file.stem for file in files)
    for file in files:
        name = str(file.relative_to(PACKAGED).with_suffix(""))
        assert presets.run(parser().parse_args(["config", "show", name])) == 0
        assert capsys.readouterr().out == file.read_text(encoding="utf-8")
    with pytest.raises(LaunchError, match=r"config show: expected one of .*laptop.*, got labtop; see stillhouse config list"):
        presets.find_preset("labtop")


def test_the_schema_knows_the_settings_and_refuses_others(capsys: pytest.CaptureFixture[str]):
    assert presets.run(parser().parse_args(["config", "schema"])) == 0
    schema = json.loads(capsys.readouterr().out)
    assert set(schema["properties"]) == set(RunConfig.model_fields)
    assert presets.run(parser().parse_args(["config", "schema", "--task"])) == 0
    of_task = json.loads(capsys.readouterr().out)
    assert "max_length" in json.dumps(of_task["$defs"]["TaskRunDataSettings"])
    assert schema["additionalProperties"] is False
    assert "updates" in schema["$defs"]["TrainSettings"]["properties"]


def test_the_version_is_the_projects(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as left:
        parser().parse_args(["--version"])
    assert left.value.code == 0
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert capsys.readouterr().out == f"stillhouse {project['version']}\n"


def test_the_command_of_the_package_is_this_door():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == {"stillhouse": "launcher.cli:main"}
    verbs = next(action.choices for action in parser()._actions if isinstance(action.choices, dict))
    assert set(verbs) == set(cli.MODULES)
    assert all((ROOT / f"{module.replace('.', '/')}.py").is_file() for module in cli.MODULES.values())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("trian", "stillhouse: argument VERB: invalid choice: 'trian'"),
        ("train", "stillhouse train: the following arguments are required: --config; see stillhouse train --help"),
        ("shards", "stillhouse shards: the following arguments are required: VERB; see stillhouse shards --help"),
        ("shards build a.txt", "stillhouse shards build: the following arguments are required: --out, --tokenizer"),
        ("shards build a --out b --tokenizer c --per word", "stillhouse shards build: argument --per: invalid choice: 'word'"),
        ("shards build a --out b --tokenizer c --processes 0", "argument --processes: expected a whole number of at least 1, got 0"),
        ("shards info a --samples -1", "argument --samples: expected a whole number of at least 0, got -1"),
        ("evaluate m --shards s --window-tokens 3", "argument --window-tokens: expected a whole number of at least 4, got 3"),
        ("evaluate m --shards s --batch 0", "argument --batch: expected a whole number of at least 1, got 0"),
        ("evaluate m --shards s --windows 1.5", "argument --windows: expected a whole number of at least 1, got 1.5"),
        ("evaluate m --shards s --seed -1", "argument --seed: expected a whole number of at least 0, got -1"),
        ("evaluate m --shards s --mask-rate 1", "argument --mask-rate: expected a share between 0 and 1, got 1"),
        ("evaluate m --shards s --mask-rate nan", "argument --mask-rate: expected a share between 0 and 1, got nan"),
        ("compare x.yaml --budget money", "argument --budget: invalid choice: 'money'"),
        ("compare x.yaml --amount 0", "argument --amount: expected a number above 0, got 0"),
        ("compare x.yaml --jobs 0", "argument --jobs: expected a whole number of at least 1, got 0"),
        ("wandb-replay r --mode off", "argument --mode: invalid choice: 'off'"),
    ],
)
def test_a_wrong_word_on_the_command_line_is_one_line(fails: Callable[..., str], words: str, message: str):
    assert message in fails(*words.split())


def test_numbers_of_the_command_line_are_numbers():
    assert [at_least(0)(text) for text in ("0", " 7", "+3")] == [0, 7, 3]
    assert share("0.15") == 0.15


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train --config /nowhere/x.yaml", "/nowhere/x.yaml: expected a configuration file, got none there"),
        ("train --config tiny train.udpates=3", "train.udpates: unknown key; did you mean updates?"),
        ("train --config tiny run.folder=/proc/none --dry-run data.shards", "data.shards"),
        ("train --config tiny data.shards=/nowhere", "/nowhere: expected a folder of shards, got no folder"),
        ("evaluate /nowhere/m --shards /nowhere/s", "/nowhere/s: expected a folder of shards, got no folder"),
        ("shards verify /nowhere/s", "/nowhere/s: expected a folder of shards, got no folder"),
        ("shards info /nowhere/s", "/nowhere/s: expected a folder of shards, got no folder"),
        ("compare /nowhere/x.yaml", "/nowhere/x.yaml: expected a configuration file, got none there"),
        ("compare train.clip=1", "stillhouse compare: expected a comparison file, got none; name one"),
        ("compare layers data.shards=/nowhere", "/nowhere: expected a folder of shards, got no folder"),
        ("chain train.clip=1", "stillhouse chain: expected one chain file, got 0; name one"),
        ("chain assistants data.shards=/nowhere", "/nowhere: expected a folder of shards, got no folder"),
        ("wandb-replay /nowhere/r", "/nowhere/r: expected a run folder with config.yaml, got none"),
    ],
)
def test_what_is_not_there_is_one_line(fails: Callable[..., str], words: str, message: str):
    assert message in fails(*words.split())


def test_only_the_first_rank_says_what_all_ranks_found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def bad(arguments: object) -> int:
        raise errors.pop()

    monkeypatch.delenv("LOCAL_RANK", raising=False)  # of a test that started a process group in this process
    for rank, said in (("0", "stillhouse: no\n"), ("1", "")):
        monkeypatch.setenv("RANK", rank)
        errors = [LaunchError("no"), KdError("no"), DataError("no")]
        while errors:
            assert guarded(bad, parser().parse_args(["demo"])) == 2
            assert capsys.readouterr().err == said


def test_ctrl_c_outside_a_run_is_one_word(no_rank: None, capsys: pytest.CaptureFixture[str]):
    def interrupted(arguments: object) -> int:
        raise KeyboardInterrupt

    assert guarded(interrupted, parser().parse_args(["demo"])) == 130
    assert capsys.readouterr().err == "stillhouse: stopped\n"


@pytest.mark.slow
@pytest.mark.parametrize("command", [["-m", "launcher.cli", "train"], ["launcher/run.py", "--local_rank=0"]])
def test_both_doors_end_with_code_2_and_one_line_in_a_process_of_their_own(command: list[str], tmp_path: Path):
    done = subprocess.run(
        [sys.executable, *command, "--config", "tiny", f"run.folder={tmp_path}", "train.micro_batch=3"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "RANK"},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("stillhouse: ")
    assert done.stderr.count("\n") == 1
    assert "expected global_batch to be a multiple of micro_batch, got 8 and 3" in done.stderr
