import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertTokenizerFast

from kd.errors import KdError
from kd.export.hugging_face import save_student
from kd.models.config import quiet_transformers
from kd.models.encoder import Encoder
from kd.models.loading import load_mlm
from kd.models.sizes import model_sizes
from kd.student.settings import StudentSettings
from kd.student.student import make_student


def student_of(make_model, family, architecture="same"):
    return make_student(StudentSettings(layers=[0, 2], architecture=architecture), Encoder(make_model(family)), seed=1)


@pytest.mark.parametrize(
    ("family", "architecture"),
    [("bert", "same"), ("bert", "distilbert"), ("distilbert", "same"), ("roberta", "same")],
)
def test_an_exported_student_is_read_by_transformers_alone_with_equal_logits(make_model, tmp_path, tiny_batch, family, architecture):
    student = student_of(make_model, family, architecture)
    save_student(student, tmp_path / "student", tokenizer_folder=None)
    with quiet_transformers():
        model, report = AutoModelForMaskedLM.from_pretrained(tmp_path / "student", output_loading_info=True)
    assert not any(report.values()), report
    ids = tiny_batch.input_ids[0, :9][None]
    with torch.no_grad():
        student.eval()
        expected = student.hf(input_ids=ids).logits
        torch.testing.assert_close(model.eval()(input_ids=ids).logits, expected, rtol=0, atol=0)
    assert (tmp_path / "student" / "model.safetensors").is_file()
    config = json.loads((tmp_path / "student" / "config.json").read_text())
    assert config["architectures"] == [type(model).__name__]
    again = load_mlm(str(tmp_path / "student"))
    assert again.layers == 2
    assert not list(tmp_path.glob(".*"))


def test_the_tokenizer_comes_along(make_model, tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "still", "house"]))
    tokenizer = BertTokenizerFast(vocab=str(tmp_path / "vocab.txt"))
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "tokenizer" / "notes.txt").write_text("not a tokenizer's file")
    student = student_of(make_model, "bert")
    save_student(student, tmp_path / "student", tokenizer_folder=tmp_path / "tokenizer")
    with quiet_transformers():
        loaded = AutoTokenizer.from_pretrained(tmp_path / "student")
    assert loaded("house still")["input_ids"] == tokenizer("house still")["input_ids"]
    assert not (tmp_path / "student" / "notes.txt").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(KdError, match="expected tokenizer files to copy"):
        save_student(student, tmp_path / "other", tokenizer_folder=tmp_path / "empty")
    assert not (tmp_path / "other").exists()


def test_an_earlier_student_is_replaced_and_anything_else_is_kept(make_model, tmp_path):
    for family in ("bert", "distilbert"):
        save_student(student_of(make_model, family), tmp_path / "student", tokenizer_folder=None)
    assert load_mlm(str(tmp_path / "student")).family.name == "distilbert"
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    (tmp_path / "file").write_text("x")
    for name in ("thesis", "file"):
        with pytest.raises(KdError, match="expected a free name or an earlier model"):
            save_student(student_of(make_model, "bert"), tmp_path / name, tokenizer_folder=None)
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]


def test_a_write_that_fails_leaves_the_earlier_student_and_no_rubbish(make_model, tmp_path, monkeypatch):
    save_student(student_of(make_model, "bert"), tmp_path / "student", tokenizer_folder=None)
    other = student_of(make_model, "distilbert")

    def full(folder: Path, **_: object) -> None:
        (Path(folder) / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(other.hf, "save_pretrained", full)
    with pytest.raises(KdError, match=r"student: expected to write the student there, got .*No space left on device; free space"):
        save_student(other, tmp_path / "student", tokenizer_folder=None)
    assert load_mlm(str(tmp_path / "student")).family.name == "bert"
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


def test_sizes_count_tied_weights_once(make_model):
    student = student_of(make_model, "distilbert")
    sizes = model_sizes(student)
    # by hand, V 120, P 40, D 32, F 64: embeddings and norm, two layers, the head and its bias
    layer = 4 * (32 * 32 + 32) + 2 * 32 * 64 + 64 + 32 + 4 * 32
    expected = 120 * 32 + 40 * 32 + 2 * 32 + 2 * layer + (32 * 32 + 32) + 2 * 32 + 120
    assert (sizes.parameters, sizes.bytes) == (expected, 4 * expected)
    assert sizes.trainable == expected
    student.part(student.family.position_embeddings).requires_grad_(False)
    assert model_sizes(student).trainable == expected - 40 * 32
