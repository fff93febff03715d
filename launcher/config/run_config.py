"""The configuration of a run: one frozen model of the settings that each package defines with its code.

Conditions on several sections are checked here: a term that needs a teacher has one, and phases fill the run.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticKnownError

from data_shards.stream.settings import StreamSettings
from kd.errors import KdError
from kd.student.settings import StudentSettings
from kd.teacher.settings import MemberSettings, Mixing, OneOrSeveral, check_assignment
from kd.terms import Term
from kd.terms.base import DocumentTerm, has_layer_map
from kd.terms.schedules import OptimizerSettings, bounds
from kd.training.phases import Phase, PhaseSettings, phases_of
from kd.training.settings import CheckpointSettings, TrainSettings
from stillhouse.settings import FREE

STRICT = ConfigDict(frozen=True, extra="forbid")
Text = Annotated[str, Field(min_length=1)]
TASK_ONLY = {"label_map": {}, "allow_untrained": False, "cache_outputs": "auto"}
"""Settings of a teacher that only a task has, and their defaults."""


class RunSettings(BaseModel):
    """The name of the run and its folder."""

    model_config = STRICT

    folder: Text
    name: Text | None = None
    """Shown in W&B and the model card; default: the folder's last part."""


class DataSettings(StreamSettings):
    """A shard folder or URL, and how it becomes rows."""

    shards: Annotated[Text, FREE]
    """Another place of the same shards: the stream's cursor holds their fingerprint and refuses others."""

    @property
    def stream(self) -> StreamSettings:
        """The stream's own part."""
        return StreamSettings(**self.model_dump(exclude={"shards"}))


class EvaluateSettings(BaseModel):
    """Held-out scores during and after a run."""

    model_config = STRICT

    every_updates: Annotated[int, Field(gt=0)] | None = 500
    windows: Annotated[int, Field(gt=0)] | None = 1024
    """Number of held-out windows during the run; null: all of them."""
    batch: Annotated[int, Field(gt=0)] = 32
    patience: Annotated[int, Field(gt=0)] | None = None
    """The run ends early after this number of evaluations in a row without a better one. null: it does not."""
    keep: Literal["last", "best"] = "last"
    """The student that is exported: of the last update, or of the best evaluation (checkpoint.keep_best above 0)."""


class TextEvaluateSettings(EvaluateSettings):
    """Held-out scores of a run on text, and what is looked at beside them."""

    samples: Annotated[int, Field(ge=0, le=64)] = 8
    """Held-out sentences whose masked token teacher and student guess at each evaluation (samples.jsonl); 0: none."""
    layer_similarity_every: Annotated[int, Field(gt=0)] | None = None
    """Updates from one measurement of the similarity of layers to the next, a multiple of report.every_updates; null: never."""


class ReportSettings(BaseModel):
    """Interval of the reports, and the W&B settings."""

    model_config = STRICT

    every_updates: Annotated[int, Field(gt=0)] = 10
    wandb: Literal["online", "offline", "off"] = "off"
    project: str = "stillhouse"
    entity: str | None = None
    group: str | None = None
    job_type: str | None = None
    tags: list[str] = []
    artifact: Literal["reference", "upload", "none"] = "reference"
    """The finished student in W&B: its place and digests, its files, or neither."""


class AnyRunConfig(BaseModel):
    """The settings that all runs share: RunConfig trains on text, launcher.config.task_config.TaskRunConfig on a task."""

    model_config = STRICT

    run: Annotated[RunSettings, FREE]
    """A folder that was moved is the same run."""
    data: Any
    student: StudentSettings = StudentSettings()
    teacher: OneOrSeveral | None = None
    """One teacher or a list. null: no teacher; the terms must then need none (a masked-language-model pretrainer)."""
    teacher_mixing: Mixing = "mean"
    """The way in which several teachers are combined."""
    phases: list[PhaseSettings] = []
    """[]: the whole run is one."""
    objective: Annotated[list[Term], Field(validate_default=True)] = []
    """The loss; with phases, that of those which have none of their own."""
    train: TrainSettings
    optimizer: OptimizerSettings = OptimizerSettings()
    checkpoint: Annotated[CheckpointSettings, FREE] = CheckpointSettings()
    evaluate: Annotated[EvaluateSettings, FREE] = EvaluateSettings()
    report: Annotated[ReportSettings, FREE] = ReportSettings()

    @field_validator("objective")
    @classmethod
    def _something_to_learn(cls, objective: list[Term], info: ValidationInfo) -> list[Term]:
        phases = info.data.get("phases")  # None: a mistake was found in them
        if phases is not None and not objective and not (phases and all(phase.objective for phase in phases)):
            raise PydanticKnownError("missing")
        return objective

    @model_validator(mode="after")
    def _rooms_agree(self) -> Self:
        if self.train.updates is not None:  # else the plan, which knows the run's length, checks the phases
            try:
                self.phases_of(self.train.updates)
            except KdError as error:
                raise ValueError(str(error)) from None
        asking = sorted({term.kind for term in self.terms.values() if max(bounds(term.weight)) > 0 and term.required_outputs})
        if asking and not self.members:
            raise ValueError(f"teacher: expected a teacher for {', '.join(asking)}, got null; name one, or drop the term")
        try:
            check_assignment(self.terms, max(1, len(self.members)), self.teacher_mixing)
        except KdError as error:
            raise ValueError(str(error)) from None
        for place, term in self.terms.items():
            self._check_term(place, term)
            if isinstance(term, DocumentTerm):
                self._check_group(place, term)
            if has_layer_map(term, "copied") and (self.student.init != "teacher" or term.teacher):
                got = f"student.init: {self.student.init}" if self.student.init != "teacher" else f"teacher: {term.teacher}"
                raise ValueError(
                    f"{place}.layer_map: expected a student made of this teacher's layers for copied, got {got}; name another map, or pairs"
                )
        if not self.members and self.student.init == "teacher":
            advice = "write ./teacher for the folder of that name" if Path("teacher").is_dir() else "name a folder or hub model"
            raise ValueError(f"student.init: expected a model folder where there is no teacher, got teacher; {advice}")
        if self.evaluate.keep == "best" and self.checkpoint.keep_best == 0:
            raise ValueError("checkpoint.keep_best: expected at least 1 with evaluate.keep: best, got 0; raise it")
        return self

    def _check_term(self, place: str, term: Term) -> None:
        """ValueError for a term that has no meaning on this kind of data."""

    @property
    def _one_document_a_row(self) -> bool:
        """True if no row of a batch holds two documents."""
        return True

    @property
    def row_tokens(self) -> int:
        """The most positions of a row."""
        raise NotImplementedError

    def _check_group(self, place: str, term: DocumentTerm) -> None:
        """ValueError if a micro-batch cannot be cut into groups of `group_rows` rows, or no group can hold two documents."""
        rows = self.train.micro_batch
        if term.group_rows is not None and rows % term.group_rows:
            raise ValueError(
                f"{place}.group_rows: expected a number that divides train.micro_batch = {rows}, got {term.group_rows}; change either"
            )
        group, fewest = term.group_rows or rows, term.partners + 1
        if self._one_document_a_row and group < fewest:
            name = "train.micro_batch" if term.group_rows is None else f"{place}.group_rows"
            raise ValueError(f"{name}: expected at least {fewest} for {term.kind} with one document a row, got {group}; raise it")

    @property
    def members(self) -> dict[str, MemberSettings]:
        """The teachers, one or several or none, by their keys. A student made from a teacher is made from the first."""
        if isinstance(self.teacher, list):
            return {f"teacher.{number}": member for number, member in enumerate(self.teacher)}
        return {"teacher": MemberSettings(**self.teacher.model_dump())} if self.teacher is not None else {}

    def phases_of(self, updates: int) -> tuple[Phase, ...]:
        """The phases of a run of `updates` updates. Raises KdError where they do not fit."""
        return phases_of(self.phases, self.objective, self.optimizer, updates)

    @property
    def terms(self) -> dict[str, Term]:
        """The terms of all phases, by the setting that names them."""
        lists = {f"phases.{number}.objective": phase.objective for number, phase in enumerate(self.phases) if phase.objective is not None}
        if len(lists) < max(1, len(self.phases)):
            lists["objective"] = self.objective
        return {f"{place}.{number}": term for place, terms in lists.items() for number, term in enumerate(terms)}

    @property
    def name(self) -> str:
        """The run's name."""
        return self.run.name or Path(self.run.folder).absolute().name


class RunConfig(AnyRunConfig):
    """A run on text: a masked-language model."""

    data: DataSettings
    evaluate: Annotated[TextEvaluateSettings, FREE] = TextEvaluateSettings()

    @model_validator(mode="after")
    def _can_measure_layers(self) -> Self:
        every, lines = self.evaluate.layer_similarity_every, self.report.every_updates
        if every is not None and every % lines:
            raise ValueError(
                f"evaluate.layer_similarity_every: expected a multiple of report.every_updates = {lines}, got {every}; change either"
            )
        first = next(iter(self.members.values()), None)
        if every is not None and (first is None or first.mode == "cached"):
            got = "none" if first is None else "mode: cached"
            raise ValueError(f"evaluate.layer_similarity_every: expected a teacher that computes its layers, got {got}; set null")
        return self

    def _check_term(self, place: str, term: Term) -> None:
        """ValueError for a term that only a task has, and for labels where there are none."""
        if term.kind == "task_loss":
            raise ValueError(f"{place}.kind: expected a term on text, got task_loss, which needs a task's labels; use mlm")
        if term.kind == "soft_targets" and term.positions == "all" and max(bounds(term.alpha)) > 0:
            raise ValueError(
                f"{place}.positions: expected masked with alpha above 0, for labels stand there alone, got all; set masked, or add mlm"
            )
        for name, member in self.members.items():
            for key, default in TASK_ONLY.items():
                if getattr(member, key) != default:
                    raise ValueError(f"{name}.{key}: expected it for a task alone, got {getattr(member, key)}; leave it out")

    @property
    def _one_document_a_row(self) -> bool:
        return self.data.packing == "documents"

    @property
    def row_tokens(self) -> int:
        """The positions of a window."""
        return self.data.window_tokens
