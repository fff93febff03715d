"""The commands that measure what is lacking."""

import shlex
from collections.abc import Sequence

from launcher.advice.option import Option, Options, Shape

UNKNOWN = "not measured"


def commands_of(options: Options) -> list[str]:
    """The commands for times of all models at once, scores of exports, and an INT8 export of each model."""
    made = []
    if any(one.p95_ms is None or not one.trusted for one in options.models):
        made.append(latency_command(options.models, options.task, options.shape or (1, 128, 1)))
    names = {one.name for one in options.models if one.form.startswith("onnx int8")}
    for one in options.models:
        if one.form == "torch fp32" and one.name not in names and one.folder.is_dir():
            made.append(export_command(one, options.task))
        if one.form != "torch fp32" and one.value is None:
            made.append(f"export it again with {shlex.join(_config(one))}: {one.folder}")
    return made


def latency_command(models: Sequence[Option], task: str, shape: Shape) -> str:
    """The times of all models whose folders are here."""
    batch, length, threads = shape
    folders = list(dict.fromkeys(str(one.folder) for one in models if one.folder.is_dir())) or ["MODEL"]
    words = ["--batch", str(batch), "--length", str(length), "--threads", str(threads)]
    return shlex.join(["stillhouse", "latency", *folders, *words, "--json", f"latency-{task.replace('/', '-')}.json"])


def export_command(model: Option, task: str) -> str:
    """An INT8 export of a model, compared on its task."""
    out = f"shipped/{task}-{model.name}-int8".replace(" ", "-").replace(",", "")
    return shlex.join(["stillhouse", "export", str(model.folder), "--precision", "int8", "--out", out, *_config(model)])


def _config(model: Option) -> list[str]:
    return ["--task-config", str(model.config) if model.config is not None and model.config.is_file() else "TASK"]
