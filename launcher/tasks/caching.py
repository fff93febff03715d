"""The rule that decides whether a teacher's outputs are computed once and kept: from the configuration and the number of rows alone."""

from collections.abc import Sequence
from dataclasses import dataclass

from kd.terms.base import LogitTerm
from kd.terms.schedules import bounds
from kd.training.phases import Phase
from launcher.config.task_config import TaskRunConfig
from launcher.errors import LaunchError
from launcher.text import size

MOST_BYTES = 4_000_000_000
"""Outputs above this size are kept with teacher.cache_outputs: true only."""


@dataclass(frozen=True)
class Caching:
    """The decision for one teacher. bytes: of its outputs. computes: some phase needs its hidden states or attention."""

    cached: bool
    bytes: int
    computes: bool
    reason: str
    needed: bool = True
    """False: no term needs an output."""
    if_present: bool = False
    """Not worth a pass of its own; used if another run left the file."""

    @property
    def text(self) -> str:
        """The decision in words, for the plan."""
        if self.cached:
            more = "; its forward pass also runs in phases that need hidden states" if self.computes else ""
            return f"computed once, {size(self.bytes)} on disk, mapped into memory{more}"
        return f"computed in every update: {self.reason}" if self.needed else f"not computed: {self.reason}"


def caching_of(config: TaskRunConfig, number: int, phases: Sequence[Phase], rows: int, size_in_bytes: int) -> Caching:
    """The decision for teacher `number`. rows: those of an epoch. Raises LaunchError for cache_outputs: true where no phase can use it."""
    place, member = list(config.members.items())[number]
    several = len(config.members) > 1
    drawn = several and config.teacher_mixing == "random"
    share = member.weight / sum(other.weight for other in config.members.values()) if drawn else 1.0
    read, states = 0.0, ""
    for phase in phases:
        terms = [term for term in phase.terms if max(bounds(term.weight)) > 0 and term.required_outputs]
        mine = [term for term in terms if not several or term.teacher in (None, number)]
        others = [term.kind for term in mine if not isinstance(term, LogitTerm)]
        if others:
            states = others[0]
        elif mine:
            read += share * phase.updates * config.train.global_batch
    if not read and member.cache_outputs is True:
        got = f"{states}, which needs its hidden states" if states else "none"
        raise LaunchError(
            f"{place}.cache_outputs: expected a term on the teacher's logits alone for true, got {got}; set it to auto, or drop the term"
        )
    if not read:
        reason = f"{states} needs hidden states" if states else "no term needs them"
        return Caching(False, size_in_bytes, bool(states), reason, needed=bool(states))
    if member.cache_outputs is not False and member.cache_outputs != "auto":
        return Caching(True, size_in_bytes, bool(states), "")
    reason = ""
    if member.cache_outputs is False:
        reason = f"{place}.cache_outputs is false"
    elif size_in_bytes > MOST_BYTES:
        reason = f"its outputs take {size(size_in_bytes)}; {place}.cache_outputs: true keeps them"
    elif read < rows + config.train.global_batch:  # the last batch of one epoch is filled up
        reason = f"the run is {read / rows:.2g} epochs, in which keeping them saves nothing; outputs that another run left are used"
    return Caching(not reason, size_in_bytes, bool(states), reason, if_present=reason.startswith("the run is"))


def measured_config(config: TaskRunConfig) -> TaskRunConfig:
    """The run whose updates an estimate times: its teachers compute in every update, and no rows are made before the first one."""
    config = config.model_copy(update={"data": config.data.model_copy(update={"augment": None})})
    off = {"cache_outputs": False}
    if config.teacher is None:
        return config
    if isinstance(config.teacher, list):
        return config.model_copy(update={"teacher": [member.model_copy(update=off) for member in config.teacher]})
    return config.model_copy(update={"teacher": config.teacher.model_copy(update=off)})
