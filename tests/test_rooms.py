"""The rooms hold: which package imports which, the order of folders, where third-party packages are imported, how long a file may be."""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {
    "launcher": {"launcher", "kd", "data_shards", "stillhouse"},
    "kd": {"kd", "stillhouse"},
    "data_shards": {"data_shards", "stillhouse"},
    "stillhouse": {"stillhouse"},
}
ORDER = {
    "stillhouse": ["errors", "files", "digests", "lazy", "settings"],
    "data_shards": ["errors", "storage", "tokenizer", "sources", "corpus", "stream", "tasks", "build", "info", "verify"],
    "kd": [
        *("errors", "copies", "batch", "kernels", "distributed", "models", "student", "checkpoint", "terms", "objective", "teacher"),
        *("evaluation", "export", "training", "tasks"),
    ],
    "launcher": [
        *("errors", "redaction", "text", "tables", "commands", "process", "config", "run_folder", "reporting", "dashboard"),
        *("report", "run_page", "planning"),
        *("training", "benchmarks", "evaluation", "corpus", "tasks", "comparison", "deployment", "retention"),
        *("advice", "doctor", "demo"),
        *("prepare", "api", "run", "cli"),
    ],
}
"""Folders and root files of a room, from the ground up: a name imports only names before it, and itself."""
HOMES = {
    "wandb": ("launcher/reporting/wandb.py",),
    "wandb_workspaces": ("launcher/dashboard/workspaces.py",),
    "yaml": ("launcher/config/*.py",),
    "webdataset": ("data_shards/*",),
    "datasets": ("data_shards/*",),
    "torch": ("kd/*", "launcher/*"),
    "deepspeed": (
        *("kd/training/engine.py", "kd/teacher/split.py", "kd/distributed/process_group.py"),
        *("launcher/run.py", "launcher/process/preflight.py"),
    ),
    "matplotlib": (
        *("launcher/comparison/plots.py", "launcher/comparison/tasks/plots.py"),
        *("launcher/reporting/curves.py", "launcher/deployment/timing/plot.py", "launcher/benchmarks/picture.py"),
        "launcher/planning/cost/picture.py",
    ),
    "jinja2": ("launcher/report/page.py", "launcher/run_page/page.py"),
    "huggingface_hub": ("kd/models/config.py", "kd/export/*", "launcher/deployment/*", "launcher/tasks/card.py"),
    "onnxruntime": ("kd/export/*",),
    "onnx": ("kd/export/*",),
    "sklearn": ("kd/tasks/*",),
    "scipy": ("kd/tasks/*",),
}
DOORS = ("launcher/run.py", "launcher/cli.py")  # --help and a misspelt key should not cost the seconds that torch takes
MAX_LINES = 300
QUESTIONS = ("What", "How", "Where", "Who", "Which", "Whether", "Why", "Whatever", "Whoever")
MAX_FILES = 15
MODULES = {path.relative_to(ROOT).as_posix(): path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))}


def imports(tree: ast.AST) -> list[ast.Import | ast.ImportFrom]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def modules(node: ast.Import | ast.ImportFrom) -> list[str]:
    """The dotted names that one import statement reaches; `from a.b import c` gives a.b.c, which may be a module or a name in a.b."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    assert node.level == 0, f"line {node.lineno}: expected an absolute import, got a relative one"
    return [f"{node.module}.{alias.name}" for alias in node.names]


@pytest.mark.parametrize("name", MODULES)
def test_a_module_keeps_to_its_room(name: str):
    text = MODULES[name].read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree), f"{name}: expected a docstring that says what the file is for"
    assert text.count("\n") <= MAX_LINES, f"{name}: expected at most {MAX_LINES} lines, got {text.count(chr(10))}; split it by noun"
    for node in imports(tree):
        for package in (module.split(".")[0] for module in modules(node)):
            assert package not in ROOMS or package in ROOMS[name.split("/")[0]], f"{name}:{node.lineno}: may not import {package}"
            homes = HOMES.get(package, ("*",))
            assert any(fnmatch(name, home) for home in homes), f"{name}:{node.lineno}: {package} belongs in {', '.join(homes)}"


@pytest.mark.parametrize("name", MODULES)
def test_a_docstring_opens_with_the_thing_that_it_describes(name: str):
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            opening = node.value.value.split(maxsplit=1)[0]
            assert opening not in QUESTIONS, f"{name}:{node.lineno}: {opening} …: expected a docstring that names the thing first"


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_folders_below_its_own(name: str):
    room, *rest = name.removesuffix(".py").split("/")
    if rest == ["__init__"]:
        return
    order = ORDER[room]
    own = order.index(rest[0])
    for node in imports(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        for module in modules(node):
            parts = module.split(".")
            if parts[0] == room and len(parts) > 1 and parts[1] in order:
                assert order.index(parts[1]) <= own, f"{name}:{node.lineno}: {room}/{rest[0]} stands below {room}/{parts[1]} in ORDER"


def test_the_python_interface_is_the_one_arrow_up_and_imports_nothing_before_a_name_is_used():
    upper = [name for name in ROOMS if name != "stillhouse"]
    named = re.compile(rf"[\"']({'|'.join(upper)})\.")
    own = {name: path.read_text(encoding="utf-8") for name, path in MODULES.items() if name.startswith("stillhouse/")}
    assert [name for name, text in own.items() if named.search(text)] == ["stillhouse/__init__.py"]
    code = f"import sys, stillhouse; print([m for m in sys.modules if m.split('.')[0] in {[*upper, 'torch', 'pydantic']}])"
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert told == "[]\n"


def test_the_order_names_every_folder_once():
    for room, order in ORDER.items():
        names = {name.split("/")[1].removesuffix(".py") for name in MODULES if name.startswith(f"{room}/")} - {"__init__"}
        assert sorted(order) == sorted(names), room


def test_a_folder_has_few_files():
    files: dict[str, int] = defaultdict(int)
    for name in MODULES:
        files[name.rpartition("/")[0]] += 1
    assert {folder: count for folder, count in files.items() if count > MAX_FILES} == {}


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
    named = set(re.findall(r"(?:launcher|kd|data_shards|stillhouse|tests|slurm)/[\w/]+\.(?:py|sh)", (ROOT / "ARCHITECTURE.md").read_text()))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
