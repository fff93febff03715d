"""Names in docs and docstrings exist: files, modules, and what stands in backticks."""

import ast
import io
import re
import shlex
import tokenize
from functools import cache
from pathlib import Path

import pytest

from launcher.commands.parser import parser
from launcher.config.load import load_run
from launcher.errors import LaunchError

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("launcher", "kd", "data_shards", "stillhouse")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
EXAMPLES = ("configs/X.yaml", "slurm/cluster.sh")  # placeholders, and a file that each cluster has of its own
FILE = re.compile(
    r"(?<![\w/.])(?:launcher|kd|data_shards|stillhouse|tests|slurm|docs|configs|requirements)/[\w/.-]*\w\.(?:py|sh|md|yaml|example)\b"
)
DOTTED = re.compile(r"(?<![\w./])(?:launcher|kd|data_shards|stillhouse)(?:\.[A-Za-z_]\w*)+(?!\w|/|\.py)")
FENCE = re.compile(r"^ *```\w*\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
BACKTICKED = re.compile(r"`([A-Za-z_]\w*)(?:\(\))?`")


def docstrings(path: Path) -> list[str]:
    """The docstrings of a file, and the strings that stand below its fields."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]


@cache
def known_names() -> frozenset[str]:
    """Every name and every string without blanks in the code, the keys of the presets, and the targets of make."""
    names: set[str] = set()
    for path in [*SOURCES, *ROOT.glob("tests/**/*.py")]:
        for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
            if token.type == tokenize.NAME:
                names.add(token.string)
            elif token.type == tokenize.STRING and not token.string.startswith(('"""', 'r"""')):
                names |= set(re.findall(r"\w+", token.string))
    for path in [*ROOT.glob("configs/**/*.yaml"), *ROOT.glob("slurm/*"), ROOT / "pyproject.toml", ROOT / "Makefile"]:
        names |= set(re.findall(r"\w+", path.read_text(encoding="utf-8")))
    return frozenset(names)


def exists(dotted: str) -> bool:
    """Whether a dotted name is a module, or a name that stands in one."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        base = ROOT.joinpath(*parts[:end])
        file = base.with_suffix(".py") if base.with_suffix(".py").is_file() else base / "__init__.py"
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            return all(re.search(rf"\b{name}\b", text) for name in parts[end:])
    return False


@pytest.mark.parametrize("path", [*PAGES, *SOURCES], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_and_modules_that_a_text_names_exist(path: Path):
    text = path.read_text(encoding="utf-8")
    assert [name for name in FILE.findall(text) if not (ROOT / name).exists() and name not in EXAMPLES] == []
    told = "\n".join(docstrings(path)) if path.suffix == ".py" else text
    assert [name for name in DOTTED.findall(told) if not exists(name) and name != "stillhouse.json"] == []  # a file of exported folders


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_names_in_backticks_in_a_docstring_stand_in_the_code(path: Path):
    assert [name for text in docstrings(path) for name in BACKTICKED.findall(text) if name not in known_names()] == []


def commands(page: Path) -> list[list[str]]:
    """The words of each `stillhouse` command in the code blocks of a page, without what a shell does with its output."""
    found = []
    for block in FENCE.findall(page.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars="|<>;&")
            lexer.whitespace_split, lexer.commenters = True, "#"
            words = list(lexer) if line.strip().startswith("stillhouse ") else []
            end = next((n for n, word in enumerate(words) if set(word) <= set("|<>;&")), len(words))
            if words and "…" not in words and not any(word.startswith("[") for word in words):
                found.append(words[1:end])
    return found


COMMANDS = [(page.name, words) for page in PAGES for words in commands(page)]


@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=lambda value: value if isinstance(value, str) else " ".join(value)[:60])
def test_commands_of_the_pages_have_known_verbs_options_and_settings(page: str, words: list[str]):
    """Files that a page calls the user's own are not there, so their settings are not read."""
    arguments = parser().parse_args(words)
    settings = getattr(arguments, "settings", None)
    if arguments.verb in ("train", "task") and settings is not None:
        mistake = ""
        try:
            load_run(arguments.config, settings)
        except LaunchError as error:
            mistake = str(error)
        assert not mistake or "expected a file, or one of" in mistake, f"{page}: {mistake}"
    if arguments.verb == "plan" and not arguments.calibrate:
        load_run(arguments.config, settings).train.micro_batches(arguments.nodes * arguments.gpus)
