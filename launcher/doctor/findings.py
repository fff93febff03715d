"""Findings of `stillhouse doctor`, one a line: good, warning or bad, with the value and the advice."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from launcher.redaction import redacted
from launcher.tables import PlainConsole, print_legend

Verdict = Literal["good", "warning", "bad"]
COLOURS = {"good": "green", "warning": "yellow", "bad": "bold red"}
MEANINGS = {"good": "nothing to do", "warning": "a run works, but not as well as it could", "bad": "a run would fail"}


@dataclass(frozen=True)
class Finding:
    """One line. advice: "" where there is nothing to do."""

    subject: str
    verdict: Verdict
    found: str
    advice: str = ""


def good(subject: str, found: str) -> Finding:
    """Nothing to do."""
    return Finding(subject, "good", found)


def warning(subject: str, found: str, advice: str) -> Finding:
    """A run works, but not as well as it might."""
    return Finding(subject, "warning", found, advice)


def bad(subject: str, found: str, advice: str) -> Finding:
    """A run would fail."""
    return Finding(subject, "bad", found, advice)


def seen(subject: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of a check. A check that fails itself is a bad finding."""
    try:
        yield from look()
    except Exception as error:  # a broken machine breaks in ways nobody listed; the other checks still matter
        text = " ".join(str(error).split()) or "no reason given"
        yield bad(subject, f"{type(error).__name__}: {text[:200]}", "see that it works by itself")


def report(findings: list[Finding], as_json: bool, console: Console | None = None) -> int:
    """Print all of them; the exit code: 1 if any is bad."""
    found = [Finding(**redacted(asdict(finding))) for finding in findings]
    if as_json:
        print(json.dumps([asdict(finding) for finding in found], indent=1))
    else:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for heading in ("verdict", "checked", "found, and what to do"):
            table.add_column(heading, overflow="fold")
        for finding in found:
            told = Text(finding.found)
            if finding.advice:
                told.append(f"\n-> {finding.advice}", COLOURS[finding.verdict])
            table.add_row(Text(finding.verdict, COLOURS[finding.verdict]), Text(finding.subject), told)
        shown = console or PlainConsole()
        shown.print(table)
        print_legend(shown, {verdict: meaning for verdict, meaning in MEANINGS.items() if verdict in {one.verdict for one in found}})
    return int(any(finding.verdict == "bad" for finding in found))
