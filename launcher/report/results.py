"""The plain description that a report is made of: tasks, their models, and each model's runs. One JSON object holds all of it."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kd.tasks.metrics.catalogue import Kind, metric
from launcher.errors import LaunchError
from stillhouse.errors import StillhouseError

Role = Literal["teacher", "distilled", "task_distilled", "pretraining_distilled", "fine_tuned"]
"""The training of a model.

distilled: in pretraining and on the task.
task_distilled: on the task only.
pretraining_distilled: in pretraining only, then fine-tuned.
fine_tuned: a student that never had a teacher.
"""
ROLE_TITLES: dict[Role, str] = {
    "teacher": "teacher",
    "distilled": "distilled in pretraining and on the task",
    "task_distilled": "distilled on the task",
    "pretraining_distilled": "distilled in pretraining, fine-tuned on the task",
    "fine_tuned": "fine-tuned without a teacher",
}


WITHOUT_TEACHER: tuple[Role, ...] = ("fine_tuned", "pretraining_distilled")
"""Roles of students that have no teacher on the task."""


class Described(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CurvePoint(Described):
    """The metric on the development set after so many optimizer updates."""

    update: Annotated[int, Field(ge=0)]
    value: float


class Run(Described):
    """One seed. value: the task's metric; low, high: its bootstrap interval; standard_error: of the bootstrap.

    predictions: a JSONL file, relative to the results' folder; `Prediction` is one line.
    """

    seed: int
    value: float
    low: float
    high: float
    standard_error: Annotated[float, Field(ge=0)]
    scores: dict[str, float] = {}
    """Further metrics of the task by name."""
    predictions: str | None = None
    curve: list[CurvePoint] = []

    @model_validator(mode="after")
    def _ordered(self) -> "Run":
        if not self.low <= self.high:
            raise ValueError(f"seed {self.seed}: expected low <= high, got {self.low} and {self.high}; write the interval's ends in order")
        return self


class Exported(Described):
    """A model's ONNX file. value: the task's metric, as its export measured it; null: not measured. problems: of its comparison."""

    form: Annotated[str, Field(min_length=1)]
    """Such as INT8."""
    bytes: Annotated[int, Field(gt=0)]
    value: float | None = None
    latency_ms: Annotated[float, Field(gt=0)] | None = None
    problems: list[str] = []


class Model(Described):
    """One model on one task. `name` is the same on every task. latency_ms: per example; null: not measured."""

    name: Annotated[str, Field(min_length=1)]
    role: Role
    runs: Annotated[list[Run], Field(min_length=1)]
    parameters: Annotated[int, Field(gt=0)] | None = None
    bytes: Annotated[int, Field(gt=0)] | None = None
    latency_ms: Annotated[float, Field(gt=0)] | None = None
    without_teacher: str | None = None
    """The name of the same student fine-tuned without a teacher."""
    pretraining_tokens: Annotated[int, Field(ge=0)] | None = None
    """Positions that its pretraining read before its training on the task. 0: it had none. null: unknown."""
    transfer_set: bool = False
    """It also learned from rows without labels, or from augmented rows."""
    random_start: bool = False
    """Its weights were random before its training on the task."""
    exported: Exported | None = None
    settings: dict[str, str] = {}
    """Further settings by name, such as epochs. The report names those in which two compared students differ."""

    @model_validator(mode="after")
    def _seeds(self) -> "Model":
        seeds = [run.seed for run in self.runs]
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"model {self.name}: expected each seed once, got {sorted(seeds)}; remove one")
        return self


class Task(Described):
    """A task with its teacher and students. constant: the metric of the constant predictor. Higher metrics are better.

    small_and_noisy: left out of the second macro average. labels: class names in the order of class numbers.
    """

    name: Annotated[str, Field(min_length=1)]
    title: Annotated[str, Field(min_length=1)]
    kind: Kind
    metric: str
    """A key of kd.tasks.metrics.catalogue.METRICS for that kind."""
    constant: float
    examples: Annotated[int, Field(gt=0)]
    """Rows of the set that was scored."""
    train_examples: int | None = None
    small_and_noisy: bool = False
    labels: list[str] = []
    source: str = ""
    models: Annotated[list[Model], Field(min_length=1)]

    @model_validator(mode="after")
    def _one_teacher(self) -> "Task":
        names = [model.name for model in self.models]
        twice = sorted({name for name in names if names.count(name) > 1})
        teachers = [model.name for model in self.models if model.role == "teacher"]
        if twice:
            raise ValueError(f"task {self.name}: expected each model once, got {', '.join(twice)} twice; rename one")
        if len(teachers) != 1:
            raise ValueError(f"task {self.name}: expected one model with the role teacher, got {len(teachers)}; set its role")
        for model in self.models:
            other = model.without_teacher
            if other is not None and all(one.name != other or one.role not in WITHOUT_TEACHER for one in self.models):
                raise ValueError(
                    f"model {model.name}: expected without_teacher to be a {' or '.join(WITHOUT_TEACHER)} model of the task, got {other}; "
                    "add it"
                )
        if metric(self.kind, self.metric).better != "higher":
            raise ValueError(f"task {self.name}: expected a metric of which more is better, got {self.metric}; choose another")
        return self

    @property
    def metric_title(self) -> str:
        return metric(self.kind, self.metric).title

    @property
    def teacher(self) -> Model:
        return next(model for model in self.models if model.role == "teacher")

    @property
    def students(self) -> list[Model]:
        return [model for model in self.models if model.role != "teacher"]

    def model(self, name: str) -> Model:
        return next(model for model in self.models if model.name == name)


class Results(Described):
    """Everything that a report needs. margin: the loss of retention from which the report advises against distilling."""

    title: str
    tasks: Annotated[list[Task], Field(min_length=1)]
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.03
    notes: list[str] = []
    """Sentences below the summary: machine, how the epoch was chosen, where latency was measured."""
    latency: str = ""
    """A sentence on where and how latency was measured."""
    latency_command: str = ""
    """The command that measures latency, where it was not measured."""
    environment: dict[str, str] = {}
    """Package -> version."""

    @model_validator(mode="after")
    def _distinct(self) -> "Results":
        for names in ([task.name for task in self.tasks], [task.title for task in self.tasks]):
            if len(set(names)) < len(names):
                raise ValueError(f"tasks: expected each name and title once, got {', '.join(names)}; rename one")
        return self


class Prediction(Described):
    """One line of a predictions file: an example of the scored set, in its order.

    label, predicted: in the form of the task's kind.
      classification: class number.
      regression: number.
      multi_label: list of 0 and 1.
      tagging: tags.
      question_answering: answers and a text.
    scores: classification only, the probability of each class.
    """

    text: str = ""
    text_pair: str | None = None
    label: Any
    predicted: Any
    scores: list[float] | None = None


def read_results(path: Path) -> Results:
    """The results in a JSON file."""
    try:
        return Results.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LaunchError(f"{path}: expected a file with results, got {error.strerror}; write it first") from None
    except (ValidationError, UnicodeDecodeError, StillhouseError) as error:
        raise LaunchError(f"{path}: expected results of a report, got {_first(error)}; write the file again") from None


def read_predictions(path: Path, examples: int) -> list[Prediction]:
    """The predictions of one run, one per example."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise LaunchError(f"{path}: expected a file with predictions, got {_first(error)}; score the model again") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                rows.append(Prediction.model_validate(json.loads(_whole(line))))
            except (ValidationError, ValueError) as error:
                raise LaunchError(f"{path}: expected a prediction in line {number}, got {_first(error)}; score the model again") from None
    if len(rows) != examples:
        raise LaunchError(f"{path}: expected {examples} predictions, got {len(rows)}; score the model again")
    return rows


def _whole(line: str) -> str:
    """A line of JSON in which half a surrogate pair (as cut emoji leave behind) is a question mark, because no UTF-8 can hold it."""
    if "\\ud" not in line.lower():
        return line
    return json.dumps(json.loads(line), ensure_ascii=False).encode("utf-8", "replace").decode()


def _first(error: Exception) -> str:
    """The first problem on one line."""
    if isinstance(error, ValidationError):
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        return f"{where}: {problem['msg']}" if where else str(problem["msg"])
    return " ".join(str(error).split())
