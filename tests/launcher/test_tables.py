"""Tables at 80 columns: every number and heading is whole, every column is explained, and one is not many."""

import io
import re
from pathlib import Path

import pytest
import torch
from rich.console import Console

from kd.terms.layer_map import by_similarity
from launcher.comparison import results
from launcher.comparison.results import Results
from launcher.doctor.findings import bad, good, report, warning
from launcher.evaluation import evaluate
from launcher.reporting import layer_similarity
from launcher.tables import Column, PlainConsole, print_table
from launcher.text import counted

ROOT = Path(__file__).parents[2]


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=80)


def text_of(console: Console) -> str:
    """What was printed; no line is wider than the console."""
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= console.width
    return text


def test_columns_that_do_not_fit_go_into_another_table(console):
    columns = [
        Column(f"heading {letter}", [f"{10**number:,}", "1"], f"meaning of {letter}") for number, letter in enumerate("abcdefghijkl")
    ]
    print_table(console, Column("name", ["a/long/path/of/a/model", "b"], justify="left"), columns)
    text = text_of(console)
    assert "…" not in text
    for column in columns:
        assert text.count(f" {column.heading}") == 1
        assert f" {column.cells[0]} " in f"{text} ".replace("\n", " ")
        assert f"\n{column.heading}: {column.meaning}\n" in text
    assert text.count("name") > 1, "each part has the names in front"


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_numbers_are_whole_at_every_width(width):
    console = Console(file=io.StringIO(), width=width)
    print_table(console, Column("model", ["x" * 60], justify="left"), [Column("parameters", ["1,234,567,890"])] * 4)
    assert console.file.getvalue().count("1,234,567,890") == 4


def test_scores_at_80_columns_explain_every_column(console):
    row = {"parameters": 1_234_500_000, "loss": 12.345, "top1": 1.0, "top5": 1.0, "agreement": 1.0, "kl": 12.345, "retention": 1.0}
    rows = [row | {"model": "runs/demo/baseline/student", "tokens_per_second": 1_234_567.0}, row | {"model": "teacher"}]
    evaluate.show(rows, console)
    text = text_of(console)
    assert "…" not in text
    for value in ("12.345", "100.0%", "1234.5M", "1,234,567"):
        assert value in text
    for heading in ("loss", "top-1", "top-5", "retained", "agrees", "KL", "size", "tokens/s"):
        assert f"\n{heading}: " in text
    assert "\nretained: top-1 as a share of the teacher's\n" in text


def test_scores_without_a_teacher_have_no_empty_columns(console):
    row = {"model": "alone", "parameters": 1000, "loss": 1.0, "top1": 0.5, "top5": 0.5, "agreement": None, "kl": None, "retention": None}
    evaluate.show([row], console)
    text = text_of(console)
    assert "loss" in text
    for heading in ("retained", "agrees", "KL", "tokens/s"):
        assert heading not in text


def test_24_teacher_layers_are_whole_at_80_columns(console):
    similarity = torch.linspace(0, 1, 6 * 24).reshape(6, 24)
    layer_similarity.show(similarity, by_similarity(similarity), console)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    table = [line for line in lines if not line.startswith("layer_map:")]  # a setting to copy: one line
    assert max(map(len, table)) <= 80
    assert "…" not in "".join(table)
    assert sum(len(line.split()) - 1 for line in table if line.strip()[:1].isdecimal() and "." in line) == 6 * 24
    assert "1 is equal; *: the pair is in the map" in " ".join(" ".join(lines).split())


def test_a_doctors_table_is_whole_and_explains_its_verdicts(console):
    findings = [good("x" * 100, "y" * 300), warning("disk", "slow", "use another"), bad("memory", "none", "add some")]
    assert report(findings, as_json=False, console=console) == 1
    text = text_of(console)
    assert text.count("y") - text.count("memory") - text.count("anyway") >= 300
    for verdict in ("good: nothing to do", "warning: a run works, but not as well as it could", "bad: a run would fail"):
        assert f"\n{verdict}\n" in text
    quiet = Console(file=io.StringIO(), width=80)
    report([good("disk", "fast")], as_json=False, console=quiet)
    assert "bad: " not in text_of(quiet)


def test_a_comparisons_legend_explains_every_heading_and_sign():
    keys = [metric.key for metric in (*results.SCORES, *results.COSTS)]
    rows = [{"variant": name, "seed": seed} | dict.fromkeys(keys, 12345.678) for name in ("a", "b") for seed in (1, 2)]
    found = Results("x", "tokens", "a", ["a", "b"], rows, {})
    console = Console(file=io.StringIO(), width=80)
    for table in (*results.scores_tables(found), *results.costs_tables(found), *results.differences_tables(found)):
        console.print(table)
    text = text_of(console)
    assert "…" not in text
    legend = results.legend(found)
    for table in (*results.scores_tables(found), *results.costs_tables(found)):
        assert all(legend[str(column.header)] for column in table.columns[1:])
    assert {"±", "≈", "?"} <= set(legend)


def test_one_is_not_many():
    assert [counted(count, "document") for count in (0, 1, 2, 2000)] == ["0 documents", "1 document", "2 documents", "2,000 documents"]
    assert [counted(count, "micro-batch", "micro-batches") for count in (1, 2)] == ["1 micro-batch", "2 micro-batches"]


def test_brackets_and_colons_in_names_are_no_markup():
    """A folder named `[/x]` was a traceback, `:fire:` a picture."""
    console = PlainConsole(file=io.StringIO(), width=60)
    console.print("in runs/[red]x[/blue]/:fire:")
    print_table(console, Column("name", ["[/x]", "[bold]b"], justify="left"), [Column("[dim]a", ["[1]", ":+1:"])])
    shown = text_of(console)
    assert "in runs/[red]x[/blue]/:fire:" in shown
    assert all(word in shown for word in ("[/x]", "[bold]b", "[dim]a", "[1]", ":+1:"))


def test_every_verb_prints_on_a_console_that_knows_no_markup():
    """Only a line of progress on stderr may come from rich's own console, for it has no text of a user's."""
    files = [file for file in (ROOT / "launcher").rglob("*.py") if file.name != "tables.py"]
    assert [str(file) for file in files if re.search(r"(?<![A-Za-z])Console\((?!stderr=True\))", file.read_text())] == []
