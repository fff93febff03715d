"""The commands that measure what is lacking."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from launcher.advice.option import Option, Options, Shape

UNKNOWN = "not measured"


MOST_MODELS = 8
"""Of one command for times. It takes minutes for more."""
MOST_EXPORTS = 3


def commands_of(options: Options, misses: Callable[[Option], bool]) -> list[str]:
    """The commands for times of all models at once, scores of exports, and an INT8 export of the most promising models.

    The teacher comes first, then the students that miss no limit, by the share of the teacher's metric that they retain. A line counts
    those that are left out.
    """
    made, models = [], sorted(options.models, key=lambda one: (not one.teacher, misses(one), -(one.retained or 0)))
    if any(one.p95_ms is None or not one.trusted for one in models):
        made.append(latency_command(models, options.task, options.shape or (1, 128, 1)))
        folders = {one.folder for one in models if one.folder.is_dir()}
        if len(folders) > MOST_MODELS:
            made.append(f"times of {len(folders) - MOST_MODELS} more models, which promise less: add their folders to that command")
    made += [f"export it again with {shlex.join(_config(one))}: {one.folder}" for one in models if _without_score(one)]
    names = {one.name for one in models if one.form.startswith("onnx int8")}
    exports = [one for one in models if one.form == "torch fp32" and one.name not in names and one.folder.is_dir()]
    made += [export_command(one, options.task) for one in exports[:MOST_EXPORTS]]
    if len(exports) > MOST_EXPORTS:
        made.append(f"INT8 exports of {len(exports) - MOST_EXPORTS} more models, which promise less")
    return made


def _without_score(model: Option) -> bool:
    return model.form != "torch fp32" and model.value is None


def latency_command(models: Sequence[Option], task: str, shape: Shape) -> str:
    """The times of the first models whose folders are here."""
    batch, length, threads = shape
    folders = list(dict.fromkeys(str(one.folder) for one in models if one.folder.is_dir()))[:MOST_MODELS] or ["MODEL"]
    words = ["--batch", str(batch), "--length", str(length), "--threads", str(threads)]
    return shlex.join(["stillhouse", "latency", *folders, *words, "--json", f"latency-{task.replace('/', '-')}.json"])


def export_command(model: Option, task: str) -> str:
    """An INT8 export of a model, compared on its task."""
    name = "-".join(Path(model.name).parts[-2:]).replace(" ", "-").replace(",", "")
    out = f"shipped/{task.replace('/', '-')}-{name}-int8"
    return shlex.join(["stillhouse", "export", str(model.folder), "--precision", "int8", "--out", out, *_config(model)])


def _config(model: Option) -> list[str]:
    return ["--task-config", str(model.config) if model.config is not None and model.config.is_file() else "TASK"]
