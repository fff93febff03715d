"""A report of what was read and changed: nothing is dropped, cut, converted or guessed without a line here."""

from dataclasses import dataclass, field

SHOWN_PLACES = 3


@dataclass
class Finding:
    """A fact about some rows of a split. action: dropped, kept or converted, and why."""

    split: str
    fact: str
    count: int
    action: str
    places: list[str] = field(default_factory=list)
    """The first few, as file:line."""

    def line(self) -> str:
        """The finding as one line."""
        return f"{self.split}: {self.fact}: {self.count:,}, {self.action}; first: {', '.join(_short(self.places))}"


def _short(places: list[str]) -> list[str]:
    """The places, without the file's name where it is that of the place before."""
    files = [place.rpartition(":")[0] for place in places]
    return [
        place.rpartition(":")[2].strip() if number and files[number] and files[number] == files[number - 1] else place
        for number, place in enumerate(places)
    ]


@dataclass
class DataReport:
    """The findings in the data of a task, in the order in which they were made."""

    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Facts about a split as a whole, and what was guessed."""

    def note(self, text: str) -> None:
        """Add a fact that is not about single rows."""
        self.notes.append(text)

    def add(self, split: str, fact: str, action: str, places: list[str], count: int | None = None) -> None:
        """Add a finding about rows, unless there is no such row."""
        count = len(places) if count is None else count
        if count:
            self.findings.append(Finding(split, fact, count, action, places[:SHOWN_PLACES]))

    def count(self, fact: str, split: str | None = None) -> int:
        """Rows with a fact, by the beginning of its text."""
        return sum(one.count for one in self.findings if one.fact.startswith(fact) and split in (None, one.split))

    def lines(self) -> list[str]:
        """One line for each note and finding."""
        return [*self.notes, *(finding.line() for finding in self.findings)]
