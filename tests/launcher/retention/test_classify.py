"""`stillhouse classify` on files as users have them: the dry run, which reads the file and the models' configurations."""

from pathlib import Path

import pytest
from transformers import BertConfig

from launcher.commands.parser import parser
from launcher.config.load import load_run
from launcher.config.yaml_file import parse_yaml
from launcher.errors import LaunchError
from launcher.retention import classify
from launcher.retention.plan import Plan
from launcher.retention.settings import Retention


@pytest.fixture
def dry_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """dry_run(content, *words): the printed lines for a csv file of this content."""
    BertConfig(hidden_size=8, num_attention_heads=2, num_hidden_layers=2, intermediate_size=16).save_pretrained(tmp_path / "teacher")

    def made(content: str, *words: str) -> str:
        file = tmp_path / "my file.csv"
        file.write_text(content, encoding="utf-8-sig")
        own = ["classify", str(file), "--teacher", str(tmp_path / "teacher"), "--out", str(tmp_path / "out"), "--dry-run"]
        classify.run(parser().parse_args([*own, *words]))
        return capsys.readouterr().out

    return made


COLUMNS = ("--text", "Review Text (en)", "--label", "Sentiment?")


@pytest.mark.parametrize(("separator", "name"), [(";", ";"), ("\t", "a tab"), ("|", "|")])
def test_another_separator_is_found_in_the_first_line_and_said(dry_run, separator: str, name: str):
    rows = [["Review Text (en)", "Sentiment?", "#"], ["good, really", "pos. opinion", "1"], ["bad, no", "neg. opinion", "2"]]
    shown = dry_run("".join(separator.join(row) + "\n" for row in rows), *COLUMNS)
    assert "# kind: classification, for it has 2 different labels" in shown
    assert f"# separator: {name}, for the first line has these columns with it" in shown
    task = parse_yaml("task.yaml", shown.partition("task.yaml\n")[2].partition("\n\n#")[0])
    assert task["data"]["separator"] == separator


def test_a_comma_needs_no_separator(dry_run):
    shown = dry_run("Review Text (en),Sentiment?\ngood; really,a\nbad,b\n", *COLUMNS)
    assert "separator" not in shown


def test_a_mistyped_column_is_named_by_its_option(dry_run):
    with pytest.raises(
        LaunchError, match=r"expected a column sentiment\?, got columns .* \(did you mean Sentiment\?\?\); correct --label$"
    ):
        dry_run("Review Text (en);Sentiment?\nx;a\n", "--text", "Review Text (en)", "--label", "sentiment?")
    with pytest.raises(LaunchError, match=r"; correct --text-pair$"):
        dry_run("Review Text (en),Sentiment?\nx,a\n", *COLUMNS, "--text-pair", "second")


def test_the_texts_column_cannot_be_the_labels_too(dry_run):
    with pytest.raises(LaunchError, match=r"^--label: expected another column than the text's, got a; correct it$"):
        dry_run("a,b\nx,y\n", "--text", "a", "--label", "a")
    with pytest.raises(LaunchError, match=r": data\.columns\.label: expected another column than the text's, got a; correct it$"):
        load_run("tasks/demo", ["data.columns={text: a, label: a}"])


def test_a_teacher_in_a_folder_called_teacher_is_fine_tuned_as_that_folder(tmp_path: Path):
    """`student.init=teacher` means layers of the teacher."""
    for model, word in (("teacher", '"./teacher"'), ("models/x", '"models/x"')):
        words = parser().parse_args(["classify", "a.csv", "--text", "a", "--label", "b", "--out", "out", "--teacher", model])
        plan = Plan("proof.yaml", Retention.model_validate(classify.proof_values(words)), tmp_path)
        assert plan._teachers_init() == f"student.init={word}"


def test_numbers_with_a_decimal_comma_are_no_labels_joined_by_commas(dry_run):
    content = "text;score\n" + "".join(f"a{n};{n % 5},{n % 7}\n" for n in range(40))
    with pytest.raises(
        LaunchError, match=r"expected numbers with a decimal point in column score, got 0,0; replace the commas, or set --kind"
    ):
        dry_run(content, "--text", "text", "--label", "score")
    shown = dry_run(content, "--text", "text", "--label", "score", "--kind", "multi_label")
    assert "# kind: multi_label, for --kind says so" in shown


def test_a_mistyped_student_is_refused_before_anything_is_written(dry_run, tmp_path: Path):
    with pytest.raises(Exception, match="expected a model folder or a name that the hub or its cache knows"):
        dry_run("text,label\nx,a\n", "--text", "text", "--label", "label", "--student", "no-such-model")
    assert not (tmp_path / "out").exists()
