"""The rooms hold: who imports whom, where third-party words live, how long a file may get."""

import ast
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {"launcher": {"launcher", "kd", "data_shards"}, "kd": {"kd"}, "data_shards": {"data_shards"}}
HOMES = {
    "wandb": ("launcher/reporters.py",),
    "yaml": ("launcher/config.py", "launcher/config/*.py"),
    "webdataset": ("data_shards/*",),
    "datasets": ("data_shards/*",),
    "torch": ("kd/*", "launcher/*"),
    "deepspeed": ("kd/engine.py", "kd/split_teacher.py", "kd/distributed.py", "launcher/run.py", "launcher/preflight.py"),
    "matplotlib": ("launcher/plots.py",),
    "onnxruntime": ("kd/export/*", "kd/export.py"),
}
DOORS = ("launcher/run.py", "launcher/cli.py")  # --help and a misspelt key should not cost the seconds that torch takes
MAX_LINES = 320
MODULES = {path.relative_to(ROOT).as_posix(): path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))}


def imports(tree: ast.AST) -> list[ast.Import | ast.ImportFrom]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def packages(node: ast.Import | ast.ImportFrom) -> list[str]:
    """The top-level names that one import statement reaches."""
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    assert node.level == 0, f"line {node.lineno}: expected an absolute import, got a relative one"
    return [(node.module or "").split(".")[0]]


@pytest.mark.parametrize("name", MODULES)
def test_a_module_keeps_to_its_room(name: str):
    text = MODULES[name].read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree), f"{name}: expected a docstring that says what the file is for"
    assert text.count("\n") <= MAX_LINES, f"{name}: expected at most {MAX_LINES} lines, got {text.count(chr(10))}; split it by noun"
    for node in imports(tree):
        for package in packages(node):
            assert package not in ROOMS or package in ROOMS[name.split("/")[0]], f"{name}:{node.lineno}: may not import {package}"
            homes = HOMES.get(package, ("*",))
            assert any(fnmatch(name, home) for home in homes), f"{name}:{node.lineno}: {package} lives in {', '.join(homes)}"


@pytest.mark.parametrize("name", sorted(MODULES.keys() - set(DOORS)))
def test_imports_stand_at_the_top_unless_they_may_fail(name: str):
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    allowed = {id(node) for attempt in ast.walk(tree) if isinstance(attempt, ast.Try) for node in imports(attempt)}
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            late = [node.lineno for node in imports(function) if id(node) not in allowed]
            assert not late, f"{name}:{late[0]}: expected the import at the top of the file (inside `try` for an optional package)"


def test_no_test_folder_is_a_package():
    assert sorted((ROOT / "tests").rglob("__init__.py")) == [], "tests/kd/__init__.py would shadow kd"


def test_every_file_that_the_tour_names_exists():
    named = set(re.findall(r"(?:launcher|kd|data_shards|tests|slurm)/[\w/]+\.(?:py|sh)", (ROOT / "ARCHITECTURE.md").read_text()))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
