"""The card of a run: no path of this machine, a configuration that another machine can read, and the digests of what was exported."""

import json
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from data_shards.corpus import Corpus
from data_shards.storage.manifest import Manifest
from kd.evaluation.mlm import MlmScores
from kd.models.loading import load_mlm
from kd.student.student import make_student
from launcher.config.load import load_config
from launcher.run_folder.folder import RunFolder
from launcher.training.card import public_configuration
from launcher.training.finish import write_student
from launcher.training.parts import Finished
from stillhouse.files import sha256_of_file

SCORES = MlmScores(321, {"loss": 2.5, "top1": 0.25, "top5": 0.5, "agreement": None, "kl": None})
COUNTS = {"updates": 12, "skipped_updates": 0, "tokens": 3072}


def export(config) -> tuple[Path, str, dict]:
    """(run folder, card, report) of a run that ended."""
    folder = RunFolder(Path(config.run.folder))
    folder.folder.mkdir(exist_ok=True)
    teacher = load_mlm(config.members["teacher"].model) if config.members else None
    student = make_student(config.student, teacher, 1)
    finished = Finished(config, folder, student, SCORES, COUNTS, 60.0, "fp32", config.phases_of(12))
    write_student(Corpus.open(config.data.shards), finished)
    return folder.folder, (folder.student / "README.md").read_text(), json.loads(folder.report.read_text())


def test_the_card_of_a_run_names_no_folder_of_this_machine(make_config, corpus, tmp_path):
    _, card, _ = export(make_config("report.entity=someone", "report.project=secret-project"))
    for private in (tmp_path, corpus.shards.parent, Path.home(), Path.cwd()):
        assert str(private) not in card
    assert not re.search(r"(?<![\w./])/[a-z]+/", card), "an absolute path"
    assert "someone" not in card
    assert "secret-project" not in card
    manifest = Manifest.load(corpus.shards)
    for words in (
        "distilled from `model`",
        f"| training documents | {manifest.documents('train')} |",
        f"| held-out tokens | {manifest.tokens('heldout'):,} |",
        f"`{manifest.fingerprint}`",
        "| loss, nats per masked token | 2.500 |",
        "| processor | ",
        "| time | 1 min 00 s, 51 tokens/s |",
        "- kind: soft_targets\n  weight: 5.0\n- kind: mlm",
        "stillhouse train --config config.yaml",
    ):
        assert words in card
    assert ModelCard(card).data.tags[0] == "distillation"
    assert ModelCard(card).data.base_model is None, "a folder of this machine is no model of the hub"


def test_the_configuration_of_the_card_can_be_loaded_and_is_that_of_the_run(make_config, tmp_path):
    config = make_config()
    card = export(config)[1]
    (tmp_path / "card.yaml").write_text(re.findall(r"```yaml\n(.*?)```", card, flags=re.S)[1])
    again = load_config(str(tmp_path / "card.yaml"))
    assert (again.train, again.objective, again.student, again.optimizer) == (
        config.train,
        config.objective,
        config.student,
        config.optimizer,
    )
    assert (again.run.folder, again.data.shards, again.members["teacher"].model) == ("runs/run", "shards/shards", "model")


@pytest.mark.parametrize("shards", ["https://host.example/private/wiki/?sig=1", "/data/wiki/", "wiki"])
def test_shards_are_named_by_their_last_part(make_config, tmp_path, shards):
    config = make_config(
        f"data.shards={shards}", f"data.cache_folder={tmp_path}", "teacher.mode=cached", f"teacher.cache={tmp_path}/states"
    )
    values = public_configuration(config)
    assert (values["data"]["shards"], values["data"]["cache_folder"]) == ("shards/wiki", None)
    assert values["teacher"]["cache"] == "caches/states"


def test_a_run_without_a_teacher_is_no_distillation(make_config, corpus):
    config = make_config("teacher=null", f"student.init={corpus.model}", "objective=[{kind: mlm}]")
    _, card, report = export(config)
    assert "distill" not in card
    assert "| begun from | model |" in card
    assert report["teacher"] is None


def test_the_report_has_the_digest_of_every_exported_file_but_the_card(make_config):
    folder, _, report = export(make_config())
    files = {file.name: sha256_of_file(file) for file in (folder / "student").iterdir()}
    del files["README.md"]
    assert report["files"] == files
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(files)
