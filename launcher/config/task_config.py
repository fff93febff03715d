"""The configuration of a run on a task: RunConfig's sections, with the task's own data and evaluation. Imports no torch."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from data_shards.tasks.settings import TaskDataSettings
from kd.tasks.settings import AugmentationSettings
from kd.terms import Term
from kd.terms.base import AttentionTerm, LogitTerm, TokenTerm
from launcher.config.run_config import AnyRunConfig, EvaluateSettings
from stillhouse.settings import FREE

DISTIL: list[dict[str, Any]] = [{"kind": "soft_targets", "temperature": 2.0, "alpha": 0.5}]
FINE_TUNE: list[dict[str, Any]] = [{"kind": "task_loss"}]


class TaskEvaluateSettings(EvaluateSettings):
    """Scores on the development set during and after a run."""

    every_updates: Annotated[int, Field(gt=0)] | None = None
    """null: once an epoch."""
    windows: Annotated[int, Field(gt=0)] | None = None
    """Number of development rows during the run; null: all of them."""
    batch: Annotated[int, Field(gt=0)] = 64
    metric: str | None = None
    """The metric that decides which evaluation is best; null: the first of the task's official ones."""
    resamples: Annotated[int, Field(ge=100)] = 1000
    """Bootstrap resamples of the final interval."""
    choose_on: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """The share of train on which the best evaluation is chosen.

    0: it is chosen on dev. The report then says that dev scores are flattered.
    """


class AugmentSettings(AugmentationSettings):
    """TinyBERT's data augmentation of the training rows."""

    model: Annotated[str, Field(min_length=1)]
    """A Hugging Face folder or hub name with a masked-language-model head; it suggests words."""


class TaskRunDataSettings(TaskDataSettings):
    """The data of a run on a task."""

    augment: AugmentSettings | None = None
    """Copies of the training rows with other words, which the teacher labels. null: none."""

    @model_validator(mode="after")
    def _augments_texts(self) -> "TaskRunDataSettings":
        if self.augment is not None and self.kind in ("tagging", "question_answering"):
            raise ValueError(
                f"augment: expected classification, multi_label or regression, got {self.kind}, whose labels belong to words; drop it"
            )
        return self


class TaskRunConfig(AnyRunConfig):
    """A run on a task: fine-tuning without a teacher, distillation with one."""

    data: TaskRunDataSettings
    evaluate: Annotated[TaskEvaluateSettings, FREE] = TaskEvaluateSettings()

    @model_validator(mode="after")
    def _is_a_task(self) -> "TaskRunConfig":
        if self.train.tokens is not None:
            raise ValueError(f"train.tokens: expected updates or epochs for a task, got tokens: {self.train.tokens}; set train.epochs")
        if self.evaluate.windows is not None:
            raise ValueError(f"evaluate.windows: expected null for a task, whose whole dev is scored, got {self.evaluate.windows}; drop it")
        if self.data.train is None:
            raise ValueError("data.train: expected a file to train on, got none; name one")
        for name, member in self.members.items():
            if member.mode == "cached":
                raise ValueError(f"{name}.mode: expected replicated, zero3 or tensor_parallel for a task, got cached; use another")
        return self

    def _check_term(self, place: str, term: Term) -> None:
        """ValueError for a term of masked-language models, and for masked positions where a task has none."""
        if term.kind == "mlm":
            raise ValueError(f"{place}.kind: expected a term on a task, got mlm, which needs masked text; use task_loss")
        if isinstance(term, TokenTerm | AttentionTerm) and term.positions == "masked" and self.data.kind != "tagging":
            raise ValueError(f"{place}.positions: expected all or first for {self.data.kind}, got masked; nothing is masked in a task")
        if isinstance(term, LogitTerm) and getattr(term, "top_k", None) is not None and self.data.kind in ("regression", "multi_label"):
            raise ValueError(f"{place}.top_k: expected none for {self.data.kind}, got {term.top_k}; leave it out")  # type: ignore[union-attr]

    @property
    def row_tokens(self) -> int:
        """The most tokens of a row."""
        return self.data.max_length


def is_task(values: Any) -> bool:
    """True if the values of a YAML file describe a task."""
    data = values.get("data") if isinstance(values, dict) else None
    return isinstance(data, dict) and bool(data.keys() & {"kind", "preset"}) and "shards" not in data


def with_objective(values: dict[str, Any]) -> dict[str, Any]:
    """The values with the article's objective where they have none: alpha CE + (1 - alpha) T^2 KL with a teacher, CE without."""
    if values.get("objective") or any(isinstance(phase, dict) and phase.get("objective") for phase in values.get("phases") or []):
        return values
    return {**values, "objective": DISTIL if values.get("teacher") else FINE_TUNE}
