"""The work of a task's configuration on a cluster that is not this machine. Its rows are read; no weight is."""

from launcher.config.task_config import TaskRunConfig
from launcher.errors import LaunchError
from launcher.planning.cost.from_config import Planned
from launcher.planning.cost.operations import compute_seconds
from launcher.planning.cost.run_plan import replicated
from launcher.planning.devices.devices import Device
from launcher.tasks.plan import make_task_plan
from launcher.tasks.source import TaskSource
from launcher.text import duration


def work_of_task(config: TaskRunConfig, ranks: int, device: Device, tokens: float | None = None) -> Planned:
    """The work of a task on `ranks` devices. Raises StillhouseError for rows and models that cannot be used, and for a length in tokens."""
    if tokens is not None:
        raise LaunchError(f"--tokens: expected none for a task, got {tokens:g}; set train.epochs=N or train.updates=N")
    source = TaskSource.read(config)
    plan = make_task_plan(config, source, ranks, device=device)
    assert plan.work is not None
    work = plan.work()
    rows = sum(plan.rows.values())
    notes = [f"{work.data.windows_per_epoch:,} rows an epoch, {plan.epochs:.3g} epochs; the longest row has at most {work.window} tokens"]
    notes += [f"the teacher's outputs: {text}" for text in plan.outputs]
    once = [one for one in work.teachers if one.mode == "cached"]
    if once and work.task is not None and work.task.outputs:
        passes = work.data.windows_per_epoch / (work.micro_batches * work.micro_batch * ranks)
        seconds = passes * compute_seconds(replicated(work), device)["teacher"]
        notes.append(f"computing them once takes {duration(seconds)}, which is not in the time of the run")
    if plan.to_augment:
        notes.append(f"augmented rows: at most {plan.to_augment:,}, so the run may be shorter")
    kept = config.checkpoint.keep_last + config.checkpoint.keep_best + 1
    checkpoint = 4 * work.student.parameters + 8 * work.trainable
    texts = 0 if work.task is None else work.task.rows
    return Planned(work, texts, checkpoint, kept, tuple(notes), rows=rows)
