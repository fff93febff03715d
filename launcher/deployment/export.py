"""`stillhouse export MODEL`: a folder with a model that runs elsewhere, compared with its original before anything is written."""

import argparse
import platform
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch
from tokenizers import Tokenizer

from kd.export.extra import onnx_module
from kd.export.files import CARD
from kd.export.model_card import public_name
from kd.export.runtime import TorchSession
from kd.models.config import quiet_transformers
from kd.models.encoder import Encoder
from kd.models.loading import weights_digest
from launcher.deployment.command import command_of
from launcher.deployment.conversion.convert import TORCH, kept_weights, to_onnx, to_safetensors
from launcher.deployment.conversion.data import ExportData
from launcher.deployment.conversion.graph import Converted, Graph
from launcher.deployment.conversion.options import check_options
from launcher.deployment.conversion.problems import problems_of, speed_of
from launcher.deployment.conversion.quality import Quality
from launcher.deployment.folder import MODEL, TOKENIZER, check_target, write_folder
from launcher.deployment.models import open_model
from launcher.deployment.push import check_before_export, publish
from launcher.deployment.readme import readme
from launcher.errors import LaunchError
from launcher.process.machine import processor
from launcher.process.standard_streams import say

LARGE = 300_000_000
"""Bytes of fp32 weights from which the expected memory is named."""
BASE_MEMORY, MEMORY_OF_WEIGHTS = 600_000_000, 4.0
"""Bytes of libraries and batches, and bytes for each byte of fp32 weights. Measured: docs/shipping.md."""
PACKAGES = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime", "tokenizers")


def run(arguments: argparse.Namespace) -> int:
    """Export, compare, and write; nothing is written where the comparison fails, unless --force is given."""
    folder = Path(arguments.out)
    check_target(folder)
    check_options(arguments)
    check_before_export(arguments)
    if arguments.format == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            onnx_module(package)
    data = ExportData(arguments)
    model = open_model(arguments.model)
    tokenizer = model.tokenizer()
    say(f"{arguments.model}: {model.purpose.replace('_', ' ')}, {model.encoder.family.name}; exporting as {arguments.precision} …")
    kept_weights(model, arguments)
    if line := memory_line(model.encoder):
        say(line)
    comparison = data.comparison(model, TorchSession(model.exported))
    if arguments.format == "safetensors":
        made = to_safetensors(model, arguments)
    else:
        made = to_onnx(model, Graph(model, arguments.opset, _existing(folder)), data, comparison, arguments)
    quality = None if comparison is None else comparison.quality(made.session, "report" if arguments.precision == "auto" else "all")
    speed = speed_of(model, made) if arguments.format == "onnx" and arguments.precision != "fp32" else None
    problems = problems_of(made, quality, speed, arguments)
    if problems and not arguments.force:
        raise LaunchError("; ".join(problems) + "; or --force to write it all the same")
    record = made.record | {
        "task": model.purpose,
        "labels": model.labels,
        "mask_token": tokenizer.mask_token,
        "pad_id": tokenizer.pad_token_id,
        "max_tokens": model.encoder.max_positions,
        "vocabulary": model.encoder.vocabulary,
        "made_from": {
            "name": public_name(arguments.model),
            "weights_sha256": weights_digest(model.encoder),
            "bytes_fp32": made.original_bytes,
        },
        "bytes": made.bytes,
        "quality": None if quality is None else asdict(quality),
        "speed": speed,
        "written_in_spite_of": problems,
        "machine": processor(),
        "command": command_of(arguments),
        "versions": {name: metadata.version(name) for name in PACKAGES if _installed(name)} | {"python": platform.python_version()},
    }

    def fill(partial: Path) -> dict[str, Any]:
        if made.onnx is not None:
            made.onnx.write(partial / MODEL)
        else:
            with quiet_transformers():
                model.encoder.hf.to(getattr(torch, TORCH[arguments.precision])).save_pretrained(partial)
        _save_tokenizer(tokenizer, partial, model.encoder.max_positions)
        (partial / CARD).write_text(readme(record), encoding="utf-8")
        return record

    write_folder(folder, fill)
    _say_result(folder, made, quality, speed, problems)
    if arguments.push_to_hub:
        publish(folder, arguments.push_to_hub, arguments)
    return 0


def memory_line(encoder: Encoder) -> str:
    """The memory that an export takes at most, beside what is free here; "" for a small model."""
    weights = 4 * sum(weight.numel() for weight in encoder.hf.parameters())
    if weights < LARGE:
        return ""
    free = psutil.virtual_memory().available + weights  # which are loaded already
    needed = BASE_MEMORY + MEMORY_OF_WEIGHTS * weights
    line = f"  about {needed / 1e9:.1f} GB of memory at most, {free / 1e9:.1f} GB are free here"
    return line if needed <= free else f"{line}: expected more; close other programs, or export on a larger machine"


def _existing(folder: Path) -> Path:
    """The nearest folder above this one that exists."""
    return next(parent for parent in folder.absolute().parents if parent.is_dir())


def _save_tokenizer(tokenizer: Any, folder: Path, max_tokens: int) -> None:
    """tokenizer.json without padding, cut at the model's longest input."""
    copy = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    copy.no_padding()
    copy.enable_truncation(max_tokens)
    tokenizer.save_pretrained(folder)
    for extra in folder.glob("*.jinja"):
        extra.unlink()
    copy.save(str(folder / TOKENIZER))


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _say_result(folder: Path, made: Converted, quality: Quality | None, speed: dict[str, Any] | None, problems: list[str]) -> None:
    say(f"{folder}: {made.bytes / 1e6:.1f} MB, fp32 {made.original_bytes / 1e6:.1f} MB")
    if quality is not None:
        interval, difference = f"{quality.low:.2f} to {quality.high:.2f}", quality.largest_logit_difference
        say(f"  {quality.metric} {quality.exported:.4f}, original {quality.original:.4f}: {quality.drop:.2f} points lost ({interval})")
        equal = "" if quality.agreement is None else f"equal predictions {quality.agreement:.2%}, "
        say(f"  {equal}largest difference of logits {difference:.3g}; {quality.data}")
        if quality.remark:
            say(f"  {quality.remark}")
    else:
        say("  quality beside the original: not measured")
    if speed is not None:
        shape = f"{speed['batch']} x {speed['tokens']} tokens, one thread"
        say(f"  CPU time {speed['exported_ms']:.2f} ms, fp32 {speed['fp32_ms']:.2f} ms ({shape})")
    for problem in problems:
        say(f"  written in spite of: {problem}")
