"""Settings, files and options of a verb in any order."""

import pytest

from launcher.commands.parser import parser


@pytest.mark.parametrize(
    "words",
    [
        "plan laptop train.seed=1 --nodes 2 train.updates=3 --json",
        "plan --nodes 2 laptop --json train.seed=1 train.updates=3",
        "plan laptop --json train.seed=1 train.updates=3 --nodes 2",
    ],
)
def test_settings_and_options_come_in_any_order(words: str):
    found = parser().parse_args(words.split())
    assert (found.config, found.settings, found.nodes, found.json) == ("laptop", ["train.seed=1", "train.updates=3"], 2, True)


def test_the_order_of_the_other_verbs_is_free_too():
    found = parser().parse_args(["train", "--config", "tiny", "train.seed=1", "--dry-run", "train.updates=3"])
    assert (found.config, found.settings, found.dry_run) == ("tiny", ["train.seed=1", "train.updates=3"], True)
    assert parser().parse_args(["report", "runs/a", "--out", "x", "runs/b"]).runs == ["runs/a", "runs/b"]
    assert parser().parse_args(["compare", "a.yaml", "--ranks", "2", "train.seed=1"]).words == ["a.yaml", "train.seed=1"]


@pytest.mark.parametrize(
    ("words", "said"), [("plan x --nods 2 a=1", "unrecognized arguments: --nods"), ("watch a b", "unrecognized arguments: b")]
)
def test_a_word_that_no_argument_takes_is_still_refused(words: str, said: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as left:
        parser().parse_args(words.split())
    assert left.value.code == 2
    assert said in capsys.readouterr().err


def test_the_users_folder_is_meant_where_a_shell_leaves_its_sign(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/me")
    found = parser().parse_args(["plot", "~/runs/a", "--out=~/x.png"])
    assert (found.runs, found.out) == (["/home/me/runs/a"], "/home/me/x.png")
