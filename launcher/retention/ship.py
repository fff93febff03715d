"""The student of `stillhouse classify` as ONNX, by `stillhouse export`: INT8 where its comparison allows it, else fp32."""

import shlex
from collections.abc import Callable
from pathlib import Path

from kd.errors import KdError
from kd.export.extra import onnx_module
from launcher.commands.parser import parser
from launcher.deployment import export
from stillhouse.errors import StillhouseError

FOLDER = "onnx"
PRECISIONS = ("int8", "fp32")
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def export_words(student: Path, out: Path, task: Path, precision: str) -> list[str]:
    """The words of the export after `stillhouse`."""
    return ["export", str(student), "--precision", precision, "--out", str(out / FOLDER), "--task-config", str(task)]


def export_student(student: Path, out: Path, task: Path, say: Callable[[str], None]) -> Path | None:
    """Export the student and say why a precision was refused. Returns the folder, or None where the student stays as it is."""
    try:
        for package in PACKAGES:
            onnx_module(package)
    except KdError as error:
        say(f"no ONNX file: {error}")
        return None
    for precision in PRECISIONS:
        try:
            export.run(parser().parse_args(export_words(student, out, task, precision)))
        except StillhouseError as error:
            say(f"no {precision} ONNX file: {str(error).removesuffix('; or --force to write it all the same')}")
        else:
            return out / FOLDER
    return None


def usage(student: Path, exported: Path | None, kind: str, pair: bool) -> str:
    """The line that uses the model: with `stillhouse predict` if it was exported, else with transformers."""
    if exported is not None:
        given = """'{"text": "…", "text_pair": "…"}'""" if pair else "'…'"
        words = ["stillhouse", "predict", str(exported), *(["-", "--input-format", "jsonl", "--pair-column", "text_pair"] if pair else [])]
        return f"echo {given} | {shlex.join(words)}"
    text = '{"text": "…", "text_pair": "…"}' if pair else '"…"'
    more = {"multi_label": ", top_k=None", "regression": ', function_to_apply="none"'}.get(kind, "")
    return f'python -c \'from transformers import pipeline; print(pipeline("text-classification", "{student}"{more})({text}))\''
