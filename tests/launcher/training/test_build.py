"""What neither room can know alone is checked before anything is built; `auto` means something definite."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from data_shards.stream.settings import StreamSettings
from data_shards.stream.stream import Stream
from kd.errors import KdError
from kd.models.loading import load_mlm
from kd.student.student import make_student
from launcher.errors import LaunchError
from launcher.planning.plan import make_plan
from launcher.training.batches import sample_batches
from launcher.training.build import build, sample_of, tokenizer_folder


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_a_teacher_that_does_not_fit_is_refused_before_anything_is_built(save_model, make_config, corpus, tmp_path: Path):
    save_model(tmp_path / "other", corpus.vocabulary + 900)
    with pytest.raises(LaunchError, match=rf"^teacher: expected a vocabulary of {corpus.vocabulary}, the shards', got "):
        build(make_config(f"teacher.model={tmp_path / 'other'}"), None)
    with pytest.raises(LaunchError, match=r"^data\.window_tokens: expected at most 48, the teacher's positions, got 64"):
        build(make_config("data.window_tokens=64"), None)


def test_a_student_folder_that_does_not_fit_is_refused_too(save_model, make_config, corpus, tmp_path: Path):
    save_model(tmp_path / "small", corpus.vocabulary - 1)
    with pytest.raises(LaunchError, match=r"^student: expected a vocabulary of "):
        build(make_config("teacher=null", f"student={{init: {tmp_path / 'small'}}}", "objective=[{kind: mlm}]"), None)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("student.layers=[0, 4]", r"student\.layers: expected layers from 0 to 3, the teacher's last, got 4"),
        ("student.count=5", r"student\.count: expected at most 4, the teacher's layers, got 5"),
        ("student.layers=distilbert", r"student\.layers: expected a teacher of 12 layers for policy distilbert, got 4"),
        ("teacher.model=/nowhere/m", r"/nowhere/m: expected "),
    ],
)
def test_a_student_that_the_teacher_cannot_give_is_refused(make_config, override: str, message: str):
    with pytest.raises(KdError, match=message):
        build(make_config(override), None)


def test_the_tokenizer_of_local_shards_is_where_they_are(make_config, corpus):
    assert tokenizer_folder(make_config()) == corpus.shards / "tokenizer"
    assert tokenizer_folder(make_config(f"data.shards=file://{corpus.shards}/")) == corpus.shards / "tokenizer"


def test_the_tokenizer_of_remote_shards_is_copied_beside_them(make_config, corpus, tmp_path: Path):
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(corpus.shards))) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        folder = tokenizer_folder(make_config(f"data.shards={address}", f"data.cache_folder={tmp_path / 'cache'}"))
        server.shutdown()
    own = corpus.shards / "tokenizer"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {path.name: path.read_bytes() for path in own.iterdir()}


@pytest.mark.parametrize("shrink", ["projection", "activation"])
def test_a_narrower_student_is_made_on_the_runs_own_text(make_config, shrink: str):
    narrower = ("student.width=24", "student.architecture=same", "objective=[{kind: soft_targets}]")
    config = make_config(f"student.shrink={shrink}", "student.sample_tokens=600", *narrower)
    teacher = load_mlm(config.teacher.model)
    student, again = (make_student(config.student, teacher, 1, sample_of(config)) for _ in range(2))
    assert (student.width, student.heads, student.layers) == (24, 4, 2)
    assert make_plan(config, world=1).student_parameters == sum(weight.numel() for weight in student.parameters())
    assert all(torch.equal(one, two) for one, two in zip(student.parameters(), again.parameters(), strict=True))


def test_a_sample_is_as_large_as_asked_and_begins_where_the_run_begins(corpus):
    stream = Stream(corpus.shards, "train", StreamSettings(window_tokens=32), 4)
    batches = sample_batches(stream, 500)
    real = sum(int(batch.real.sum()) for batch in batches)
    assert 500 <= real < 500 + 4 * 32
    assert batches[0].windows.tolist() == stream.slots(0)[0].tolist()
    assert sum(len(batch.windows) for batch in sample_batches(stream, 10**9)) >= stream.windows_per_epoch
