"""A comparison as settings: one base configuration, variants of it as key=value words, seeds, and a budget that all of them get.

1. `Comparison` is the YAML file. 2. `plan` resolves every (variant, seed) to an ordinary run, and refuses what could not be compared.
3. `check_folder` proves that a folder is new or this comparison's; `write_base_config` marks it as this comparison's.

Nothing here starts anything.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from launcher.comparison.jobs import Job, updates_in
from launcher.config.free_to_change import FREE_TO_CHANGE
from launcher.config.load import differences, dump_config, load_config, load_settings, parse_config, public_values
from launcher.config.run_config import RunConfig, Text
from launcher.errors import LaunchError
from stillhouse.files import write_atomically

PACKAGED = "compare"  # configs/compare
BASE = "base.yaml"
LENGTH = ("train.updates", "train.tokens", "train.epochs")
DECIDED = ("run.folder", "run.name", "data.shards", "data.seed", "train.seed", *LENGTH)
Budget = Literal["tokens", "time"]
Words = list[Text]


class Comparison(BaseModel):
    """A comparison of variants. All runs have the base's settings, then `settings`, then their variant's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: Text
    """A configuration file, or the name of one in configs/."""
    settings: Words = []
    """key=value words for all runs, as on a run's command line."""
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [1, 2, 3]
    """Each is train.seed and data.seed of one run of every variant."""
    tokens: Annotated[int, Field(gt=0)] | None = None
    """Positions that each run reads with --budget tokens."""
    seconds: Annotated[float, Field(gt=0)] | None = None
    """Seconds that each run learns with --budget time, evaluation and saving not counted."""
    windows: Annotated[int, Field(gt=0)] | None = None
    """Number of held-out windows that score the students; null: all."""
    reference: Text | None = None
    """The variant that the others are compared with; null: the first."""
    variants: Annotated[dict[Text, Words], Field(min_length=2)]
    """Name -> key=value words."""

    @model_validator(mode="after")
    def _consistent(self) -> "Comparison":
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: expected different seeds, got {self.seeds}; drop the repeated")
        if self.reference is not None and self.reference not in self.variants:
            raise ValueError(f"reference: expected one of {', '.join(self.variants)}, got {self.reference}; correct it")
        folders: dict[str, str] = {}
        for name in self.variants:
            other = folders.setdefault(folder_name(name), name)
            if other != name:
                raise ValueError(f"variants: expected names that differ in letters or digits, got {other} and {name}; rename one")
        return self

    @property
    def compared_with(self) -> str:
        """The reference variant's name."""
        return self.reference or next(iter(self.variants))


@dataclass(frozen=True)
class PlannedRun:
    """One variant with one seed, as an ordinary run."""

    variant: str
    seed: int
    config: RunConfig
    job: Job


def files_and_settings(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """(comparison files, key=value words) of a command line. Raises LaunchError without a file, and for two of the same name."""
    files = [word for word in words if "=" not in word or Path(word).exists()]
    if not files:
        raise LaunchError("stillhouse compare: expected a comparison file, got none; name one, as configs/compare/layers.yaml")
    if len({Path(file).stem for file in files}) < len(files):
        raise LaunchError(
            "stillhouse compare: expected files of different names, got two of the same; start them one by one with a --folder each"
        )
    return files, [word for word in words if word not in files]


def load(path: str, budget: Budget, amount: float | None) -> Comparison:
    """The comparison of a YAML file, or of a packaged one by its bare name; amount: tokens or seconds instead of the file's.

    Raises LaunchError, one line a mistake, and where there is no number for this budget.
    """
    found = load_settings(Comparison, path, PACKAGED)
    key, other = ("tokens", "time") if budget == "tokens" else ("seconds", "tokens")
    if amount is not None:
        found = found.model_copy(update={key: int(amount) if budget == "tokens" else amount})
    if getattr(found, key) is None:
        raise LaunchError(
            f"{path}: {key}: expected a number for --budget {budget}, got none; add it, give --amount, or use --budget {other}"
        )
    return found


def folder_name(variant: str) -> str:
    """A variant's name as a folder's."""
    return re.sub(r"[^\w.+-]+", "-", variant).strip("-.") or "-"


def base_config(comparison: Comparison, words: list[str], where: str) -> RunConfig:
    """The configuration that all runs share: the base with the common settings, and the budget in tokens if there is one."""
    length = _length("tokens", comparison.tokens) if comparison.tokens is not None else []
    return resolved(f"{where}: settings", comparison.base, [*comparison.settings, *words, *length])


def plan(
    comparison: Comparison, where: str, root: Path, budget: Budget, words: list[str], updates: Mapping[str, int] | None = None
) -> list[PlannedRun]:
    """Every run of a comparison, seed by seed, so that an early end leaves whole seeds.

    words: key=value from the command line, for all runs. updates: how many each variant gets, with budget time. Raises LaunchError for
    words that make no valid run and for two variants that are the same run. A variant may not set what the comparison decides: folder,
    seeds, corpus, length.
    """
    runs: list[PlannedRun] = []
    seen: dict[str, str] = {}
    for seed in comparison.seeds:
        for name, own in comparison.variants.items():
            length = _length("tokens", comparison.tokens) if budget == "tokens" else _length("updates", updates[name] if updates else 1)
            folder = root / budget / folder_name(name) / f"seed-{seed}"
            fixed = [f"run.folder={json.dumps(str(folder))}", f"run.name={json.dumps(f'{root.name}: {name}, seed {seed}')}"]
            fixed += [f"train.seed={seed}", f"data.seed={seed}", *length]
            variant_key = f"{where}: variants.{name}"
            refuse_decided(variant_key, own, DECIDED)
            config = resolved(variant_key, comparison.base, [*comparison.settings, *words, *own, *fixed])
            key = json.dumps(public_values(config) | {"run": None, "report": None}, sort_keys=True)
            if seen.setdefault(key, name) != name:
                raise LaunchError(f"{where}: variants: expected different runs, got the same one for {seen[key]} and {name}; drop one")
            all_words = (*comparison.settings, *words, *own, *fixed)
            runs.append(PlannedRun(name, seed, config, Job(f"{name}, seed {seed}", folder, comparison.base, all_words, updates_in(config))))
    return runs


def check_folder(root: Path, base: RunConfig, runs: list[PlannedRun]) -> None:
    """LaunchError when the folder, or a run in it, began as something else."""
    path = root / BASE
    if path.exists():
        changed = _changes(path, base, LENGTH)
        if changed:
            raise LaunchError(f"{root}: expected the folder of this comparison, got that of another ({changed}); choose another --folder")
    for run in runs:
        own = run.job.folder / "config.yaml"
        changed = _changes(own, run.config) if own.exists() else ""
        if changed:
            raise LaunchError(
                f"{run.job.folder}: expected the run that variant {run.variant} is now, got another ({changed}); "
                "rename the variant, remove that folder, or choose another --folder"
            )


def write_base_config(root: Path, base: RunConfig) -> None:
    """Make the folder this comparison's: what all its runs share is kept there."""
    write_atomically(root / BASE, dump_config(base))


def _changes(path: Path, now: RunConfig, ignoring: tuple[str, ...] = ()) -> str:
    """The first few settings that differ from a configuration that was written before; empty where none does."""
    before = parse_config(path.read_text(encoding="utf-8"), str(path))
    lines = differences(before, now, ignoring=(*FREE_TO_CHANGE, *ignoring))
    return "; ".join(lines[:3]) + (f"; and {len(lines) - 3} more" if len(lines) > 3 else "")


def _length(kind: str, value: int | None) -> list[str]:
    """Words for a run of exactly that length."""
    return [f"{name}={value if name == f'train.{kind}' else 'null'}" for name in LENGTH]


def refuse_decided(where: str, words: list[str], decided: tuple[str, ...]) -> None:
    """LaunchError for a word that sets what is decided for all runs, or a whole section around it."""
    for word in words:
        key = word.partition("=")[0]
        if any(name == key or name.startswith(f"{key}.") for name in decided):
            raise LaunchError(f"{where}: expected settings that are not decided for all runs, got {key}; leave it out")


def resolved(where: str, base: str, words: list[str]) -> RunConfig:
    """A base with key=value words. Raises LaunchError in one line that begins with `where`."""
    try:
        return load_config(base, words)
    except LaunchError as error:
        first = str(error).splitlines()[0].removeprefix("command line: ")
        raise LaunchError(f"{where}: {first}") from None
