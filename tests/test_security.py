"""What is read runs no code, what is written is nobody else's to change, and nothing in the source could make it otherwise unseen."""

import ast
import json
import os
import pickle
import shutil
import stat
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from data_shards.errors import DataError
from data_shards.tokenizer.tokenizer import load_tokenizer
from kd.checkpoint import checkpoint
from kd.checkpoint.on_disk import Progress
from kd.errors import KdError
from kd.export.hugging_face import save_student
from kd.models.config import quiet_transformers
from kd.models.encoder import Encoder
from kd.models.loading import load_mlm

ROOT = Path(__file__).parents[1]
FORBIDDEN_IMPORTS = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}
FORBIDDEN_CALLS = {"eval", "exec", "torch.load", "np.load", "yaml.unsafe_load", "yaml.full_load", "pickle.loads", "os.system", "os.popen"}
SOURCES = sorted(path for room in ("kd", "data_shards", "launcher") for path in (ROOT / room).rglob("*.py"))
EVIL = "from pathlib import Path\nPath('pwned').write_text('')\nclass Evil:\n    pass\n"


class Payload:
    def __reduce__(self):  # what an unpickler would run
        return (Path.write_text, (Path("pwned"), ""))


@pytest.fixture(autouse=True)
def unharmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Nothing that a test reads has run."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.rglob("pwned"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, max_position_embeddings=16
    )
    with quiet_transformers():
        BertForMaskedLM(config).save_pretrained(folder)
    return folder


def test_the_source_has_no_door_for_foreign_code():
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                assert not FORBIDDEN_IMPORTS & {name.split(".")[0] for name in names}, where
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in FORBIDDEN_CALLS, where
                for keyword in node.keywords:
                    value = ast.unparse(keyword.value)
                    assert keyword.arg != "trust_remote_code" or value == "False", where
                    assert keyword.arg != "allow_pickle" or value == "False", where
                    assert keyword.arg != "shell" or value == "False", where
                    assert keyword.arg != "weights_only" or value == "True", where
                if ast.unparse(node.func).endswith(
                    ("AutoConfig.from_pretrained", "AutoTokenizer.from_pretrained", "MaskedLM.from_pretrained")
                ):
                    assert any(keyword.arg == "trust_remote_code" for keyword in node.keywords), where


def test_a_model_folder_with_code_of_its_own_runs_none_of_it(model):
    (model / "modeling_evil.py").write_text(EVIL)
    config = json.loads((model / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "modeling_evil.Evil", "AutoModelForMaskedLM": "modeling_evil.Evil"}
    (model / "config.json").write_text(json.dumps(config))
    assert isinstance(load_mlm(str(model)), Encoder), "known by its own name, the code beside it is not looked at"
    config["model_type"] = "evil"
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(KdError):
        load_mlm(str(model))


def test_a_pickle_in_the_place_of_weights_is_refused(model):
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(), protocol=2))
    with pytest.raises(KdError) as error:
        load_mlm(str(model))
    assert "\n" not in str(error.value)
    shutil.copy(model / "pytorch_model.bin", model / "model.safetensors")
    with pytest.raises(KdError):
        load_mlm(str(model))


def test_a_tokenizer_with_code_of_its_own_runs_none_of_it(tmp_path):
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "evil.py").write_text(EVIL)
    auto = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(auto))
    (folder / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}}))
    with pytest.raises(DataError) as error:
        load_tokenizer(str(folder))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("mask", [0o002, 0o022, 0o027, 0o077])
def test_checkpoints_and_students_have_the_users_umask(model, tmp_path, mask):
    before = os.umask(mask)
    try:
        checkpoint.write(tmp_path / "checkpoints", Progress(1, 0, 0, {}), [("w", torch.ones(3), {"exp_avg": torch.ones(3)})])
        save_student(load_mlm(str(model)), tmp_path / "student", tokenizer_folder=None)
    finally:
        os.umask(before)
    for folder in (tmp_path / "checkpoints", tmp_path / "student"):
        for path in folder.rglob("*"):
            mode = stat.S_IMODE(path.stat().st_mode)
            assert mode == (0o777 if path.is_dir() else 0o666) & ~mask, f"{path}: {mode:o}"


def test_the_doors_never_write_for_everyone(monkeypatch):
    from launcher.process.error_exit import guarded  # noqa: PLC0415 (the door itself)

    before = os.umask(0)
    try:
        guarded(lambda arguments: Path("made").write_text(""), None)
        assert stat.S_IMODE(Path("made").stat().st_mode) == 0o664
    finally:
        os.umask(before)
