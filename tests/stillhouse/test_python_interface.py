"""`import stillhouse`: its names, the examples of docs/python.md, and the notebook, with a small teacher and invented text."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from school import School, make_school

import stillhouse

ROOT = Path(__file__).resolve().parents[2]
TYPED = ast.parse((ROOT / "stillhouse" / "__init__.pyi").read_text())
SMALL = ["data.window_tokens=32", "train.global_batch=8", "train.micro_batch=8", "train.epochs=null"]


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> School:
    return make_school(tmp_path_factory.mktemp("school"))


def test_every_name_comes_from_the_module_that_its_type_comes_from():
    typed = {alias.asname: node.module for node in TYPED.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert typed == stillhouse.NAMES
    assert sorted(typed) == dir(stillhouse)
    for name in typed:
        assert getattr(stillhouse, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'no_such'"):
        _ = stillhouse.no_such


def test_a_wrong_setting_is_an_error_of_one_line():
    with pytest.raises(stillhouse.StillhouseError, match=r"train\.updatez") as error:
        stillhouse.load_config("laptop", ["train.updatez=10"])
    assert "\n" not in str(error.value)


def run(cells: list[str], folder: Path) -> dict[str, object]:
    """Runs cells in one process, as a notebook does; what they leave in `result`."""
    code = "\n".join([*cells, "import json", "print('RESULT', json.dumps(result))"])
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout.split("RESULT ")[-1]))


@pytest.mark.slow
def test_the_notebook_trains_a_student_and_its_plain_loop_lowers_the_loss(school, tmp_path):
    notebook = json.loads((ROOT / "examples" / "distil.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert set(re.findall(r"^[A-Z]+", cells[0], re.MULTILINE)) == {"TEXTS", "TEACHER", "FOLDER", "UPDATES"}
    assert all(cell["outputs"] == [] for cell in notebook["cells"] if cell["cell_type"] == "code")
    texts = school.shards.parent / "texts.jsonl"
    cells[0] = f"TEXTS, TEACHER, FOLDER, UPDATES = [{str(texts)!r}], {str(school.teacher)!r}, 'out', 4"
    cells[2] = cells[2].replace('"train.epochs=null",', f"*{SMALL!r},")
    cells.append("result = {'losses': losses, 'top1': row['top1'], 'layers': student.config.num_hidden_layers}")
    result = run(cells, tmp_path)
    assert sum(result["losses"][-5:]) < sum(result["losses"][:5])
    assert 0 <= result["top1"] <= 1
    assert result["layers"] == 2, "every other one of the teacher's four"
    assert (tmp_path / "out" / "run" / "student" / "model.safetensors").is_file()


@pytest.mark.slow
def test_the_examples_of_the_page_run(school, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    (tmp_path / "my_texts").mkdir()
    lines = (school.shards.parent / "texts.jsonl").read_text().splitlines()
    (tmp_path / "my_texts" / "a.txt").write_text("".join(json.loads(line)["text"] + "\n" for line in lines))
    (tmp_path / "bert-base-uncased").symlink_to(school.teacher)
    blocks[0] = blocks[0].replace('"train.updates=1000", "train.epochs=null"]', f'"train.updates=4", *{SMALL!r}]')
    blocks[0] = blocks[0].replace("teacher=", "window_tokens=32, teacher=")
    gradient = "student_logits.grad.abs().sum().item()"
    blocks.append(f"result = {{'loss': loss.item(), 'message': message, 'rows': len(rows), 'gradient': {gradient}}}")
    result = run(blocks, tmp_path)
    assert result["rows"] == 2
    assert result["loss"] > 0
    assert result["gradient"] > 0
    assert "train.updatez" in str(result["message"])
