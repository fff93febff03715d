"""A retention proof as settings: tasks, the teacher, students and seeds. Imports no torch, and starts nothing."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from launcher.comparison.settings import Words, folder_name
from launcher.config.load import load_settings
from launcher.config.run_config import Text
from launcher.report.results import Role

PACKAGED = "retention"  # configs/retention
TEACHER = "teacher"
STRICT = ConfigDict(frozen=True, extra="forbid")
Rates = Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]
Epochs = Annotated[float, Field(gt=0)]


class RetentionTask(BaseModel):
    """One task of the proof."""

    model_config = STRICT

    config: Text
    """A task configuration, or the name of a packaged one, such as tasks/sst2."""
    title: Text | None = None
    """Shown in the report; null: the task's name."""
    folder: Text | None = None
    """The folder of its official files below `data_folder`."""
    settings: Words = []
    """key=value words for all its runs."""
    epochs: Epochs | None = None
    """Epochs of its runs, instead of the teacher's and the students'."""
    noisy: bool = False
    """Leave the task out of the second mean over tasks, because it is small and noisy."""


class Learner(BaseModel):
    """The training of a model on each task."""

    model_config = STRICT

    learning_rates: Rates = [1e-4]
    """Each is tried with the first seed. The other seeds use the best one (see choosing_score)."""
    epochs: Epochs = 3
    settings: Words = []
    """key=value words for its runs."""


class RetentionTeacher(Learner):
    """The teacher, fine-tuned on each task with every seed."""

    model: Text
    """The pretrained encoder: a folder or hub name."""


class RetentionStudent(Learner):
    """A student, trained on each task with every seed. The student of a seed learns from the teacher of the same seed."""

    start: Text = "teacher"
    """teacher: layers of the fine-tuned teacher. base: layers of teacher.model. random: fresh weights. Else a model folder, or the folder
    of the run that pretrained it."""
    distilled: bool = True
    """false: fine-tune it without a teacher."""
    without_teacher: Text | None = None
    """The name of the student that is the same without a teacher. The report compares both."""

    @model_validator(mode="after")
    def _has_a_start(self) -> "RetentionStudent":
        if self.start == TEACHER and not self.distilled:
            raise ValueError("start: expected base, random or a folder without a teacher, got teacher; use base")
        return self

    @property
    def has_folder(self) -> bool:
        """True if it starts from a model that was made before the proof."""
        return self.start not in (TEACHER, "base", "random")

    @property
    def role(self) -> Role:
        """The student's role in the report, where a model folder counts as distilled in pretraining."""
        if self.distilled:
            return "distilled" if self.has_folder else "task_distilled"
        return "pretraining_distilled" if self.has_folder else "fine_tuned"


class Retention(BaseModel):
    """A retention proof. Every run has its task's configuration, then `settings`, the task's settings, and the model's."""

    model_config = STRICT

    title: Text | None = None
    """Of the report; null: the folder's name."""
    data_folder: Text | None = None
    """The folder that holds the tasks' folders; null: the tasks read what their configurations name."""
    settings: Words = []
    """key=value words for all runs."""
    tasks: Annotated[dict[Text, RetentionTask], Field(min_length=1)]
    teacher: RetentionTeacher
    students: Annotated[dict[Text, RetentionStudent], Field(min_length=1)]
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [1, 2, 3]
    latency: bool | Text = False
    """true: measure the latency of the models after the last run. A text: a file that `stillhouse latency --json` wrote."""
    int8: bool = False
    """true: export a run of each model and task to ONNX in INT8 after the last run. The report has its size, score and latency."""
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.03
    """The loss of retention from which the report advises against a student."""

    @model_validator(mode="after")
    def _consistent(self) -> "Retention":
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: expected different seeds, got {self.seeds}; drop the repeated")
        for key, names in (("tasks", list(self.tasks)), ("students", [TEACHER, *self.students])):
            folders: dict[str, str] = {}
            for name in names:
                other = folders.setdefault(folder_name(name), name)
                if other != name or names.count(name) > 1:
                    raise ValueError(f"{key}: expected names that differ in letters or digits, got {other} and {name}; rename one")
        titles = [task.title or name for name, task in self.tasks.items()]
        if len(set(titles)) < len(titles):
            raise ValueError(f"tasks: expected each title once, got {', '.join(titles)}; rename one")
        for name, student in self.students.items():
            plain = student.without_teacher
            if plain is not None and (plain not in self.students or self.students[plain].distilled):
                raise ValueError(f"students.{name}.without_teacher: expected a student with distilled: false, got {plain}; correct it")
        return self

    def learner(self, name: str) -> Learner:
        """The teacher or a student by its name."""
        return self.teacher if name == TEACHER else self.students[name]

    def epochs(self, task: str, name: str) -> float:
        """Epochs of a model's runs on a task."""
        return self.tasks[task].epochs or self.learner(name).epochs


def load_retention(path: str, overrides: Sequence[str] = ()) -> Retention:
    """The proof of a YAML file, or of a packaged one by its bare name. Raises LaunchError, one line a mistake."""
    return load_settings(Retention, path, PACKAGED, overrides)
