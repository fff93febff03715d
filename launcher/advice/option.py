"""A model of a task in one form, with its figures. A figure that is None was not measured."""

from dataclasses import dataclass, field
from pathlib import Path

Shape = tuple[int, int, int]
"""Batch, tokens and threads."""


@dataclass
class Option:
    """One model in one form. value: the task's metric. retained: value over the teacher's. seconds: wall time of training it, times ranks.

    folder: of the model, for commands. config: of the run that trained it. files: sha256 of the files of weights. device: that trained it;
    None where its run did not record it. seed: of an export, where the model has runs of several seeds.
    """

    name: str
    form: str
    folder: Path
    teacher: bool
    metric: str
    value: float | None = None
    retained: float | None = None
    retained_interval: list[float] | None = None
    bytes: int | None = None
    seconds: float | None = None
    device: str | None = None
    config: Path | None = None
    seed: str | None = None
    folders: tuple[Path, ...] = ()
    """The model of each seed, `folder` among them."""
    files: dict[str, str] = field(default_factory=dict)
    p95_ms: float | None = None
    cpu_ms: float | None = None
    trusted: bool = True
    """False where other processes had the core while its time was measured."""
    letter: str = ""
    """Its name in the table."""

    @property
    def words(self) -> str:
        """Model, seed and form."""
        return f"{self.name}, {self.seed}, {self.form}" if self.seed else f"{self.name}, {self.form}"

    @property
    def title(self) -> str:
        """The letter, and the words."""
        return f"{self.letter} ({self.words})" if self.letter else self.words

    @property
    def device_time(self) -> str:
        """The unit of `seconds`, in words."""
        if self.device is None:
            return "of wall time a process, on a device that the run did not record"
        return "of wall time a process on CPUs" if self.device == "cpu" else f"of GPU time ({self.device})"


@dataclass
class Options:
    """Everything about a task. shape: of the times, all on `processor`. left_out: lines on what was measured and is not used."""

    task: str
    models: list[Option]
    shape: Shape | None
    processor: str | None
    left_out: list[str]
