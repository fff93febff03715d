"""The runs of a retention proof as jobs: their folders, words and updates. Starts nothing, and loads no weight."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data_shards.tasks.splits import read_task
from launcher.comparison.jobs import Job
from launcher.comparison.settings import folder_name, refuse_decided
from launcher.config.derived import updates_of
from launcher.config.free_to_change import FREE_TO_CHANGE
from launcher.config.load import differences, load_run, parse_config
from launcher.config.task_config import TaskRunConfig
from launcher.errors import LaunchError
from launcher.report.results import Role
from launcher.retention.settings import TEACHER, Retention, RetentionStudent
from launcher.retention.start import Start, read_start
from launcher.tasks.plan import make_task_plan
from launcher.tasks.source import TaskSource
from stillhouse.errors import StillhouseError

DECIDED = ("run", "train.seed", "train.updates", "train.epochs", "optimizer.learning_rate", "teacher", "student.init")
LAYERS = ["student.init=teacher"]
TRANSFER = ("unlabelled", "augment")
"""Settings of `data` that add rows without labels."""
OF_PARTS = ("student.", "teacher.", *(f"data.{name}" for name in TRANSFER))
"""Beginnings of the settings that make a part of a student: its layers, its teacher, its transfer set."""
LAYER_STARTS = {TEACHER: "layers of the fine-tuned teacher", "base": "layers of the base model"}


@dataclass(frozen=True)
class _Rows:
    windows_per_epoch: int


@dataclass
class Plan:
    """The runs of a proof in one folder."""

    where: str
    settings: Retention
    root: Path
    _sources: dict[str, TaskSource] = field(default_factory=dict)
    _starts: dict[str, Start] = field(default_factory=dict)
    _unlabelled: dict[str, int] = field(default_factory=dict)

    @property
    def learners(self) -> list[str]:
        """The teacher, then the students."""
        return [TEACHER, *self.settings.students]

    def folder(self, task: str, learner: str, rate: float, seed: int) -> Path:
        """The folder of one run."""
        return self.root / folder_name(task) / folder_name(learner) / f"rate-{rate:g}" / f"seed-{seed}"

    def initial(self, name: str, seed: int) -> Path:
        """The folder of the model that a student without a teacher starts from. One serves all seeds unless its weights are random."""
        student = self.settings.students[name]
        return self.root / "initial" / (f"{folder_name(name)}-{seed}" if student.start == "random" else folder_name(name))

    def needs_initial(self, name: str) -> bool:
        """True if a student's start is a model that has to be made."""
        return name != TEACHER and self.settings.students[name].start in ("base", "random")

    def start(self, name: str) -> Start:
        """The model folder that a student starts from, read once. Raises LaunchError for a folder that holds none."""
        if name not in self._starts:
            self._starts[name] = read_start(f"{self.where}: students.{name}.start", self.settings.students[name].start)
        return self._starts[name]

    def role(self, learner: str) -> Role:
        """The role of a model in the report. A start that was pretrained without a teacher counts as not distilled in pretraining."""
        if learner == TEACHER:
            return "teacher"
        student = self.settings.students[learner]
        plain: dict[Role, Role] = {"distilled": "task_distilled", "pretraining_distilled": "fine_tuned"}
        return plain.get(student.role, student.role) if student.has_folder and not self.start(learner).distilled else student.role

    def pretraining_tokens(self, learner: str) -> int | None:
        """The tokens of a student's pretraining: 0 for layers of the base model, null where they are unknown."""
        student = self.settings.students.get(learner)
        if student is None or student.start == "base":
            return None if student is None else 0
        return self.start(learner).tokens if student.has_folder else None

    def has_transfer_set(self, task: str, learner: str) -> bool:
        """True if a student's runs on a task also read unlabelled or augmented rows. Without a teacher, a run leaves them out."""
        if learner == TEACHER or not self.settings.students[learner].distilled:
            return False
        data = self.config(task, self.jobs(task, learner, self.settings.seeds[:1], [1e-4], 1e-4)[0].words).data
        return any(bool(getattr(data, name, None)) for name in TRANSFER)

    def further_settings(self, task: str, name: str) -> dict[str, str]:
        """The settings of a student beside its parts, for the report: name -> value."""
        student = self.settings.students[name]
        start = self.start(name).name if student.has_folder else LAYER_STARTS.get(student.start)
        values = {"start": start} if start else {}
        values["epochs"] = f"{self.settings.epochs(task, name):g}"
        values["learning rates"] = ", ".join(f"{rate:g}" for rate in student.learning_rates)
        for word in student.settings:
            key, _, value = word.partition("=")
            if not key.startswith(OF_PARTS) or key in ("student.dropout", "student.trainable"):
                values[key] = value
        return values

    def _teachers_init(self) -> str:
        """The word that fine-tunes the teacher's model. A folder that is called teacher is no teacher to copy layers from."""
        model = self.settings.teacher.model
        return f"student.init={json.dumps('./teacher' if model == 'teacher' else model)}"

    def job(self, task: str, learner: str, rate: float, seed: int, teacher_rate: float) -> Job:
        """One run. teacher_rate: the learning rate of the teacher that a student learns from."""
        chosen, entry = self.settings.tasks[task], self.settings.learner(learner)
        folder = self.folder(task, learner, rate, seed)
        words = self._common(task, learner)
        words += [
            f"run.folder={json.dumps(str(folder))}",
            f"run.name={json.dumps(f'{self.root.name}: {task}, {learner}, seed {seed}')}",
            f"train.seed={seed}",
            f"train.epochs={self.settings.epochs(task, learner):g}",
            f"optimizer.learning_rate={rate!r}",
        ]
        if learner == TEACHER:
            words.append(self._teachers_init())
        else:
            student = self.settings.students[learner]
            if student.distilled:
                model = self.folder(task, TEACHER, teacher_rate, seed) / "student"
                words.append(f"teacher.model={json.dumps(str(model))}")
            init: Path | str = self._init(student, learner, seed)
            words.append(f"student.init={json.dumps(str(init))}")
        tried = len(entry.learning_rates) > 1
        name = f"{task}: {learner}{f', rate {rate:g}' if tried else ''}, seed {seed}"
        return Job(name, folder, chosen.config, tuple(words), self._updates(task, learner, words))

    def jobs(self, task: str, learner: str, seeds: list[int], rates: list[float], teacher_rate: float) -> list[Job]:
        """The runs of a model on a task, seed by seed."""
        return [self.job(task, learner, rate, seed, teacher_rate) for seed in seeds for rate in rates]

    def expected(self) -> Iterator[tuple[str, str, Job]]:
        """(task, model, run) of every run, in order. Rates that are not chosen yet are the first ones."""
        first, *others = self.settings.seeds
        for task in self.settings.tasks:
            teacher_rate = self.settings.teacher.learning_rates[0]
            for learner in self.learners:
                rates = self.settings.learner(learner).learning_rates
                for job in [
                    *self.jobs(task, learner, [first], rates, teacher_rate),
                    *self.jobs(task, learner, others, rates[:1], teacher_rate),
                ]:
                    yield task, learner, job

    def config(self, task: str, words: list[str] | tuple[str, ...]) -> TaskRunConfig:
        """The configuration of a run. Raises LaunchError for settings that make none."""
        where = f"{self.where}: tasks.{task}"
        try:
            config = load_run(self.settings.tasks[task].config, list(words))
        except LaunchError as error:
            raise LaunchError(f"{where}: {str(error).splitlines()[0].removeprefix('command line: ')}") from None
        if not isinstance(config, TaskRunConfig):
            raise LaunchError(f"{where}.config: expected a task (data.kind or data.preset), got a run on shards; see configs/tasks/")
        return config

    def source(self, task: str) -> TaskSource:
        """The data of a task, read once."""
        if task not in self._sources:
            words = [*self._common(task, TEACHER), self._teachers_init()]
            self._sources[task] = TaskSource.read(self.config(task, words))
        return self._sources[task]

    def rows(self, task: str, learner: str, config: TaskRunConfig | None = None) -> tuple[int, int]:
        """(rows of train, rows without labels that a model also learns from). Augmented rows are made by the run and not counted.

        config: of one of the model's runs, if the caller has it.
        """
        train, without = len(self.source(task).splits["train"]), 0
        student = self.settings.students.get(learner)
        if student is not None and student.distilled:
            own = (config or self.config(task, self.jobs(task, learner, self.settings.seeds[:1], [1e-4], 1e-4)[0].words)).data
            if own.unlabelled:
                key = f"{task}/{own.model_dump_json()}"
                if key not in self._unlabelled:
                    self._unlabelled[key] = len(read_task(own).splits["unlabelled"])
                without = self._unlabelled[key]
        return train, without

    def start_config(self, name: str) -> TaskRunConfig:
        """A configuration whose `student` makes layers of the base model as a student's settings say."""
        task = next(iter(self.settings.tasks))
        student = self.settings.students[name]
        words = [*self._common(task, name), *LAYERS, f"teacher.model={json.dumps(self.settings.teacher.model)}"]
        if student.start == "random":
            words += ["student.copy_layers=false", "student.copy_embeddings=false"]
        return self.config(task, words)

    def check(self, ranks: int) -> None:
        """Raise LaunchError for what can be known before the first run: settings, data, models that do not fit, folders of other runs."""
        self._check_words()
        for name, student in self.settings.students.items():
            if student.has_folder:
                self.start(name)
        model = json.dumps(self.settings.teacher.model)
        for task in self.settings.tasks:
            source = self.source(task)
            for learner in self.learners:
                words = list(self.jobs(task, learner, self.settings.seeds[:1], [1e-4], 1e-4)[0].words)
                if learner != TEACHER and (self.needs_initial(learner) or self.settings.students[learner].start == TEACHER):
                    words += LAYERS
                if learner != TEACHER:
                    words.append(f"teacher.model={model}")
                try:
                    make_task_plan(self.config(task, words), source, ranks)
                except StillhouseError as error:
                    raise LaunchError(f"{self.where}: tasks.{task}, {learner}: {error}") from None

    def check_folder(self, task: str, job: Job) -> None:
        """Raise LaunchError if the folder of a run holds a run with other settings."""
        path = job.folder / "config.yaml"
        if not path.exists():
            return
        before = parse_config(path.read_text(encoding="utf-8"), str(path))
        changed = differences(before, self.config(task, job.words), ignoring=FREE_TO_CHANGE)
        if changed:
            raise LaunchError(
                f"{job.folder}: expected the run that the settings describe, got another ({'; '.join(changed[:3])}); "
                "remove that folder, or choose another --folder"
            )

    def _init(self, student: RetentionStudent, learner: str, seed: int) -> Path | str:
        if self.needs_initial(learner):
            return self.initial(learner, seed)
        return self.start(learner).model if student.has_folder else student.start

    def _common(self, task: str, learner: str) -> list[str]:
        chosen = self.settings.tasks[task]
        words = list(self.settings.settings)
        if chosen.folder is not None and self.settings.data_folder is not None:
            words.append(f"data.folder={json.dumps(str(Path(self.settings.data_folder) / chosen.folder))}")
        return [*words, *chosen.settings, *self.settings.learner(learner).settings]

    def _check_words(self) -> None:
        settings = self.settings
        refuse_decided(f"{self.where}: settings", settings.settings, DECIDED)
        for name, task in settings.tasks.items():
            refuse_decided(f"{self.where}: tasks.{name}.settings", task.settings, DECIDED)
        refuse_decided(f"{self.where}: teacher.settings", settings.teacher.settings, DECIDED)
        for name, student in settings.students.items():
            words = [word for word in student.settings if not word.startswith("teacher.") or word.startswith("teacher.model")]
            refuse_decided(f"{self.where}: students.{name}.settings", words, DECIDED)

    def _updates(self, task: str, learner: str, words: list[str]) -> int:
        config = self.config(task, words)
        return updates_of(config, _Rows(sum(self.rows(task, learner, config))))
