"""A count of texts with the origins of the first, for a line at the end."""

from dataclasses import dataclass, field

SHOWN = 5


@dataclass
class Counted:
    """count: of all origins that were added. first: the first of them."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, origin: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(origin)

    def remark(self, one: str, several: str, ending: str) -> str | None:
        """ "3 texts were cut: a:1, a:2, …", or None without a text. one, several: "text was", "texts were"."""
        if not self.count:
            return None
        names = ", ".join(self.first) + (" …" if self.count > len(self.first) else "")
        return f"{self.count:,} {several if self.count > 1 else one} {ending}: {names}"
