"""`stillhouse push` against a hub of this process, through huggingface_hub's own client in a process of its own."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fork_server import ForkServer
from hub_server import TOKEN, Hub
from huggingface_hub import ModelCard

from data_shards.corpus import Corpus
from kd.evaluation.mlm import MlmScores
from kd.models.loading import load_mlm
from kd.student.student import make_student
from launcher.commands.parser import parser
from launcher.config.load import load_config
from launcher.deployment.export import run as export
from launcher.run_folder.folder import RunFolder
from launcher.training.finish import write_student
from launcher.training.parts import Finished
from stillhouse.files import sha256_of_file

ROOT = Path(__file__).resolve().parents[3]
pytestmark = [pytest.mark.slow, pytest.mark.tasks]
FILES = ["README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory) -> Path:
    """A finished run, with the files that must never leave the machine."""
    folder = tmp_path_factory.mktemp("push") / "run"
    config = load_config("tiny", [f"run.folder={folder}", f"data.shards={corpus.shards}", f"teacher.model={corpus.model}"])
    folder.mkdir()
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "moments").write_bytes(bytes(1000))
    (folder / "environment.json").write_text('{"host": "private-host"}')
    scores = MlmScores(100, {"loss": 2.0, "top1": 0.5, "top5": 0.75, "agreement": None, "kl": None})
    student = make_student(config.student, load_mlm(config.members["teacher"].model), 1)
    counts = {"updates": 12, "skipped_updates": 0, "tokens": 3000}
    ended = Finished(config, RunFolder(folder), student, scores, counts, 10.0, "fp32", config.phases_of(12))
    write_student(Corpus.open(config.data.shards), ended)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, which a test may change."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        yield server


@pytest.fixture
def push(hub: Hub, tmp_path: Path, fork_server: ForkServer) -> Callable[..., tuple[int, str]]:
    """push(*words, **environment): (exit code, what `stillhouse push words` printed). An environment value of None unsets the name.

    verb: None for another command, which is forked: it imports torch.
    """

    def call(*words: object, verb: str | None = "push", **more: str | None) -> tuple[int, str]:
        own = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
        environment = {**os.environ, **own, **more}
        kept = {name: value for name, value in environment.items() if value is not None}
        if verb:
            command = [sys.executable, "-m", "launcher.cli", verb, *map(str, words)]
            done = subprocess.run(command, cwd=ROOT, env=kept, capture_output=True, text=True, check=False, timeout=120)
            code, text = done.returncode, done.stdout + done.stderr
        else:
            log = tmp_path / f"output-{len(list(tmp_path.glob('output-*')))}.log"
            read_at_import = {"HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True, "HF_TOKEN_PATH": str(tmp_path / "hf" / "token")}
            constants = {f"huggingface_hub.constants.{name}": value for name, value in read_at_import.items()}
            code = fork_server.start(["stillhouse", *map(str, words)], kept, log, tmp_path, constants=constants).wait(120)
            text = log.read_text()
        assert "Traceback" not in text
        assert TOKEN not in text
        return code, text

    return call


def test_a_push_sends_the_student_and_its_card_and_nothing_else(push, hub, run):
    before = {path: sha256_of_file(path) for path in run.rglob("*") if path.is_file()}
    code, text = push(run, "me/small", "--licence", "mit", "--language", "en,de", "--base-model", "owner/large")
    assert code == 0, text
    assert f"pushed: {hub.url}/me/small (commit {hub.repositories['me/small'].commits[-1][:12]})" in text
    files = hub.repositories["me/small"].files
    assert sorted(files) == FILES
    for name in FILES[1:]:
        assert files[name] == (run / "student" / name).read_bytes()
    card = ModelCard(files["README.md"].decode())
    assert (card.data.license, card.data.language, card.data.base_model) == ("mit", ["en", "de"], "owner/large")
    assert card.data.eval_results is not None
    assert 'MODEL = "me/small"' in card.text
    assert "path/to/this/folder" not in card.text
    assert card.text.partition("## Model")[2].strip() == (run / "student" / "README.md").read_text().partition("## Model")[2].strip()
    assert {path: sha256_of_file(path) for path in run.rglob("*") if path.is_file()} == before
    assert not hub.repositories["me/small"].private


def test_a_second_push_sends_nothing_and_a_changed_card_alone_is_a_new_commit(push, hub, run):
    assert push(run, "me/small", "--private")[0] == 0
    assert hub.repositories["me/small"].private
    code, text = push(run, "me/small", "--private")
    assert code == 0, text
    assert f"already there: {hub.url}/me/small; no file differs" in text
    assert len(hub.repositories["me/small"].commits) == 2
    card = run / "student" / "README.md"
    card.write_text(card.read_text() + "\nMy own words.\n")
    code, text = push(run, "me/small")
    assert (code, "pushed: " in text) == (0, True)
    assert hub.repositories["me/small"].files["README.md"].endswith(b"My own words.\n")
    assert hub.requests["PUT /lfs"] == 1, "the weights went once"


def test_an_upload_that_broke_off_is_continued(push, hub, run):
    hub.refuse["/commit/"] = (500, "the disk of the hub is full")
    code, text = push(run, "me/small")
    assert (code, text.count("stillhouse: ")) == (2, 1)
    assert "me/small: expected the hub to take the files, got 500" in text
    assert "the disk of the hub is full" in text
    assert "start again: files that are there are not sent twice" in text
    hub.refuse.clear()
    assert push(run, "me/small")[0] == 0
    assert hub.requests["PUT /lfs"] == 1
    assert sorted(hub.repositories["me/small"].files) == FILES


def test_a_dry_run_lists_files_and_what_stays_and_asks_nobody(push, hub, run):
    (run / "student" / "notes.txt").write_text("private")
    code, text = push(run, "me/small", "--dry-run", "--private", HF_TOKEN=None)
    assert code == 0, text
    assert [line.split()[0] for line in text.splitlines() if line.startswith("  ")] == FILES
    for name in FILES[1:]:
        assert re.search(rf"^  {name} +[\d.]+ k?B$", text, flags=re.M)
    flat = " ".join(text.split())
    assert "not sent: checkpoints (1 kB), environment.json (24 B), notes.txt (7 B), report.json" in flat
    assert "licence: the card names none; add one with --licence" in flat
    assert "base model: the card names none; add the teacher's hub name with --base-model" in flat
    assert "language: the card names none; add it with --language" in flat
    assert f"dry run: nothing was sent to the private repository me/small on {hub.url}" in flat
    assert hub.requests == {}
    assert "licence" not in push(run, "me/small", "--dry-run", "--licence", "mit")[1]


def test_a_model_folder_is_pushed_as_it_is(push, hub, run):
    assert push(run / "student", "me/teacher")[0] == 0
    assert sorted(hub.repositories["me/teacher"].files) == FILES


@pytest.mark.parametrize(
    ("words", "environment", "message"),
    [
        ([], {"HF_TOKEN": None}, "token: expected a token of the model hub, got none; run `hf auth login`, or set HF_TOKEN"),
        ([], {"HF_TOKEN": "hf_wrongwrongwrong"}, "me/small: expected the hub to take the files, got 401 Unauthorized"),
        (
            [],
            {"HF_ENDPOINT": "http://127.0.0.1:9"},
            "http://127.0.0.1:9: expected the hub to answer, got none (127.0.0.1: Connection",
        ),
        ([], {"HF_HUB_OFFLINE": "1"}, "expected the hub to answer, got none (HF_HUB_OFFLINE is set); unset it, and start again"),
        (["--licence", "best"], {}, 'got Invalid metadata in README.md. - "license" must be one of [apache-2.0, mit]; correct --licence'),
    ],
)
def test_what_the_hub_refuses_is_one_line(push, run, words, environment, message):
    code, text = push(run, "me/small", *words, **environment)
    lines = [line for line in text.splitlines() if line.startswith("stillhouse: ")]
    assert (code, len(lines)) == (2, 1)
    assert text.splitlines()[-1] == lines[0]
    assert message in lines[0]
    assert "hf_wrong" not in text


def test_a_name_of_another_owner_and_a_public_repository_are_refused(push, hub, run):
    code, text = push(run, "them/small")
    assert code == 2
    assert "them/small: expected the hub to take the files, got 403" in text
    assert "use a token that may write there, or another name" in text
    assert push(run, "me/small")[0] == 0
    code, text = push(run, "me/small", "--private")
    assert code == 2
    assert "me/small: expected a private repository, got a public one" in text


def altered(run: Path) -> None:
    (run / "student" / "config.json").write_text("{}")


def incomplete(run: Path) -> None:
    (run / "student" / "tokenizer.json").unlink()


def unfinished(run: Path) -> None:
    shutil.rmtree(run / "student")


def no_card(run: Path) -> None:
    (run / "student" / "README.md").unlink()


def broken_card(run: Path) -> None:
    (run / "student" / "README.md").write_text("---\ntags: [a\n---\n# x\n")


def broken_report(run: Path) -> None:
    (run / "report.json").write_text("[1]")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (altered, "config.json: expected the file that the run wrote, got other bytes; bring it back, or push the folder"),
        (incomplete, "tokenizer.json: expected the file that the run wrote, got no file; bring it back"),
        (unfinished, "run: expected a run with a student, got none; finish the run first: stillhouse doctor"),
        (no_card, "README.md: expected a model card, got none; write one"),
        (broken_card, "README.md: expected a model card with a front matter in YAML, got while parsing a flow sequence"),
        (broken_report, "report.json: expected the report of a run, got list; restore it"),
        (lambda run: shutil.rmtree(run), "run: expected a run folder, got no folder; correct the path"),
    ],
)
def test_a_run_that_cannot_be_published_is_one_line(push, hub, run, change, message):
    change(run)
    code, text = push(run, "me/small")
    assert (code, text.count("\n")) == (2, 1), text
    assert message in text
    assert hub.requests == {}


@pytest.mark.parametrize("name", ["small", "me/small/more", "me/sm all", "-me/x", "me/" + "a" * 100])
def test_a_name_that_is_none_is_one_line(push, hub, run, name):
    code, text = push("--dry-run", "--", run, name)
    assert (code, text.count("\n")) == (2, 1), text
    assert text.startswith("stillhouse: REPO: expected owner/name, got ")
    assert hub.requests == {}


def test_a_push_imports_no_torch(run):
    code = "import sys; from launcher import cli; sys.argv = ['stillhouse', 'push', sys.argv[1], 'me/small', '--dry-run']\n"
    code += "try: cli.main()\nexcept SystemExit: print(sorted({'torch', 'transformers', 'deepspeed'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code, str(run)], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_report_is_unchanged_by_what_a_push_needs(finished):
    assert set(json.loads((finished / "report.json").read_text())["files"]) == set(FILES) - {"README.md"}


@pytest.fixture(scope="module")
def exported(corpus, tmp_path_factory) -> Path:
    """An exported folder that no test may change."""
    folder = tmp_path_factory.mktemp("exported") / "mlm"
    export(parser().parse_args(["export", str(corpus.model), "--out", str(folder)]))
    return folder


EXPORTED = ["README.md", "model.onnx", "stillhouse.json", "tokenizer.json", "tokenizer_config.json"]


def test_an_exported_folder_is_pushed_with_its_figures_their_machine_and_command(push, hub, exported):
    before = (exported / "README.md").read_bytes()
    code, text = push(exported, "me/onnx", "--licence", "mit")
    assert code == 0, text
    files = hub.repositories["me/onnx"].files
    assert sorted(files) == EXPORTED
    assert files["model.onnx"] == (exported / "model.onnx").read_bytes()
    card = ModelCard(files["README.md"].decode())
    assert (card.data.license, card.data.pipeline_tag, card.data.library_name) == ("mit", "fill-mask", "onnx")
    record = json.loads(files["stillhouse.json"])
    assert f"| measured on | {record['machine']} |" in card.text
    assert "| by | `stillhouse export model` |" in card.text
    assert str(exported.parent) not in files["README.md"].decode() + files["stillhouse.json"].decode()
    assert (exported / "README.md").read_bytes() == before


def test_a_changed_export_is_not_pushed(push, hub, exported, tmp_path):
    changed = shutil.copytree(exported, tmp_path / "changed")
    content = bytearray((changed / "model.onnx").read_bytes())
    content[-1] ^= 1
    (changed / "model.onnx").write_bytes(content)
    code, text = push(changed, "me/onnx")
    assert (code, hub.requests) == (2, {})
    assert "model.onnx: expected sha256" in text


def test_export_pushes_only_when_asked_and_a_dry_run_sends_nothing(push, hub, corpus, save_model, tmp_path):
    model = shutil.copytree(corpus.model, tmp_path / "model")
    save_model(model, corpus.vocabulary, layers=1)
    words = ["export", model, "--out", tmp_path / "made"]
    code, text = push(*words, "--push-to-hub", "me/onnx", "--dry-run", verb=None, HF_TOKEN=None)
    assert code == 0, text
    assert [line.split()[0] for line in text.splitlines() if line.startswith("  ") and "quality" not in line] == EXPORTED
    assert f"dry run: nothing was sent to the repository me/onnx on {hub.url}" in text
    assert hub.requests == {}
    code, text = push(*words, "--push-to-hub", "me/onnx", verb=None)
    assert code == 0, text
    assert f"pushed: {hub.url}/me/onnx" in text
    assert sorted(hub.repositories["me/onnx"].files) == EXPORTED


@pytest.mark.parametrize(
    ("flags", "token", "message"),
    [
        (["--push-to-hub", "onnx"], TOKEN, "REPO: expected owner/name, got onnx; put your user name or organisation in front"),
        (["--push-to-hub", "me/onnx"], None, "token: expected a token of the model hub, got none; run `hf auth login`, or set HF_TOKEN"),
        (["--dry-run"], TOKEN, "--dry-run: expected --push-to-hub with it, got none; name a repository"),
    ],
)
def test_mistakes_of_a_push_are_named_before_the_export(push, corpus, tmp_path, flags, token, message):
    code, text = push("export", corpus.model, "--out", tmp_path / "made", *flags, verb=None, HF_TOKEN=token)
    assert code == 2
    assert text.count("\n") == 1
    assert message in text
    assert not (tmp_path / "made").exists()
