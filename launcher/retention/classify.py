"""`stillhouse classify`: a teacher and a student on the user's own file, as a retention proof of one task.

It writes two configurations, `task.yaml` and `proof.yaml`, and runs `stillhouse retention` on them.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from launcher.config.yaml_file import dump_yaml
from launcher.errors import LaunchError
from launcher.process.signals import Exit
from launcher.reporting.console import PipeSafeConsole
from launcher.retention import retention
from launcher.retention.plan import Plan
from launcher.retention.settings import load_retention
from stillhouse.files import write_atomically

TASK, PROOF = "task.yaml", "proof.yaml"
LAYERS = "teacher-layers"
NAME, STUDENT = "mine", "student"


def run(arguments: argparse.Namespace) -> int:
    """Write the configurations and run the proof; its exit code."""
    if not Path(arguments.file).is_file():
        raise LaunchError(f"{arguments.file}: expected a file of examples, got none there; check the path")
    out = Path(arguments.out)
    files = {out / TASK: dump_yaml(task_values(arguments)), out / PROOF: dump_yaml(proof_values(arguments))}
    console = PipeSafeConsole()
    command = f"stillhouse retention --config {out / PROOF} --folder {out}"
    if arguments.dry_run:
        for path, text in files.items():
            console.print(f"# {path}\n{text}", soft_wrap=True, highlight=False, markup=False)
        console.print(f"# {command}{f' --ranks {arguments.ranks}' if arguments.ranks > 1 else ''}", soft_wrap=True, highlight=False)
        return Exit.DONE
    out.mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise LaunchError(
                f"{path}: expected the settings of this command, got others; choose another --out, or run {command} to use the file's"
            )
        write_atomically(path, text)
    words = {"config": str(out / PROOF), "settings": [], "folder": str(out), "ranks": arguments.ranks, "jobs": 1, "dry_run": False}
    code = retention.run(argparse.Namespace(**words))
    if code == Exit.DONE:
        for line in usage(arguments, out):
            console.print(line, soft_wrap=True, highlight=False, markup=False)
    return code


def task_values(arguments: argparse.Namespace) -> dict[str, Any]:
    """The task's configuration."""
    columns = {"text": arguments.text, "text_pair": arguments.text_pair, "label": arguments.label}
    return {
        "run": {"folder": str(Path(arguments.out) / "task")},
        "data": {
            "kind": "classification",
            "train": str(Path(arguments.file).resolve()),
            "columns": {key: column for key, column in columns.items() if column is not None},
            "dev_fraction": arguments.dev_fraction,
            "split_seed": arguments.seed,
            "drop_duplicates": True,
            "max_length": arguments.max_length,
        },
        "student": {"init": arguments.teacher, "architecture": "same"},
        "train": {
            "global_batch": arguments.batch,
            "micro_batch": _micro_batch(arguments.batch, arguments.ranks),
            "epochs": arguments.epochs,
            "zero_stage": 0,
            "clip": 1.0,
        },
        "optimizer": {"weight_decay": 0.01, "betas": [0.9, 0.999], "warmup": 0.1},
        "evaluate": {"keep": "best", "choose_on": 0.1},
    }


def proof_values(arguments: argparse.Namespace) -> dict[str, Any]:
    """The proof's settings: one task, one student, one seed."""
    common = {"learning_rates": [arguments.learning_rate], "epochs": arguments.epochs}
    start = "teacher" if arguments.student == LAYERS else arguments.student
    return {
        "title": f"A classifier of {Path(arguments.file).name}",
        "tasks": {NAME: {"config": str(Path(arguments.out) / TASK), "title": Path(arguments.file).stem}},
        "teacher": {"model": arguments.teacher, **common},
        "students": {STUDENT: {"start": start, **common}},
        "seeds": [arguments.seed],
    }


def usage(arguments: argparse.Namespace, out: Path) -> Iterator[str]:
    """The student's folder, and the line of Python that uses it."""
    plan = Plan(str(out / PROOF), load_retention(str(out / PROOF)), out)
    folder = plan.folder(NAME, STUDENT, arguments.learning_rate, arguments.seed) / "student"
    text = '{"text": "…", "text_pair": "…"}' if arguments.text_pair else '"…"'
    yield f"the student: {folder}"
    yield f'python -c \'from transformers import pipeline; print(pipeline("text-classification", "{folder}")({text}))\''


def _micro_batch(batch: int, ranks: int) -> int:
    """Rows of a rank's micro-batch: at most 32. Raises LaunchError where ranks do not divide the batch."""
    if batch % ranks:
        raise LaunchError(f"--batch: expected a multiple of the {ranks} ranks, got {batch}; change either")
    return max(size for size in range(1, min(32, batch // ranks) + 1) if batch // ranks % size == 0)
