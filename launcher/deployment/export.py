"""`stillhouse export MODEL`: a folder with a model that runs elsewhere, compared with its original before anything is written."""

import argparse
import platform
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from kd.export.extra import onnx_module
from kd.export.files import CARD
from kd.export.model_card import public_name
from kd.export.onnx_graph import export_graph, parity
from kd.export.quantise import quantise
from kd.export.runtime import AnySession, Session, TorchSession
from kd.models.config import quiet_transformers
from kd.models.loading import weights_digest
from launcher.deployment.folder import MODEL, TOKENIZER, check_target, write_folder
from launcher.deployment.machine import processor
from launcher.deployment.models import DeployedModel, open_model
from launcher.deployment.quality import Quality, read_task, shards_quality, task_quality
from launcher.deployment.readme import readme
from launcher.deployment.speed import input_arrays, measure
from launcher.errors import LaunchError
from launcher.process.standard_streams import say

FP32_PARITY = 1e-4
"""The largest difference of an fp32 graph's outputs, as a share of the largest output. Sums in another order give about 1e-6."""
SPEED_TOKENS, REPETITIONS = 128, 15
PACKAGES = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime", "tokenizers")


@dataclass(frozen=True)
class Made:
    """A model in its new form. content: the bytes of model.onnx; None for safetensors."""

    content: bytes | None
    session: AnySession
    fp32: AnySession
    record: dict[str, Any]
    bytes: int
    original_bytes: int


def run(arguments: argparse.Namespace) -> int:
    """Export, compare, and write; nothing is written where the comparison fails, unless --force is given."""
    folder = Path(arguments.out)
    check_target(folder)
    if arguments.format == "safetensors" and arguments.precision not in ("bf16", "fp32"):
        raise LaunchError(f"--precision: expected bf16 or fp32 for safetensors, got {arguments.precision}; or set --format onnx")
    if arguments.format == "onnx" and arguments.precision == "bf16":
        raise LaunchError("--precision: expected fp32 or int8 for onnx, got bf16; or set --format safetensors")
    if arguments.format == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            onnx_module(package)
    if arguments.task_config:
        read_task(arguments.model, arguments.task_config, arguments.settings)
    model = open_model(arguments.model)
    tokenizer = model.tokenizer()
    say(f"{arguments.model}: {model.purpose.replace('_', ' ')}, {model.encoder.family.name}; exporting as {arguments.precision} …")
    made = _onnx(model, arguments) if arguments.format == "onnx" else _safetensors(model, arguments)
    quality = _quality(model, made.session, arguments)
    speed = _speed(model, made) if arguments.precision == "int8" else None
    problems = _problems(made, quality, speed, arguments)
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
        "versions": {name: metadata.version(name) for name in PACKAGES if _installed(name)} | {"python": platform.python_version()},
    }

    def fill(partial: Path) -> dict[str, Any]:
        if made.content is not None:
            (partial / MODEL).write_bytes(made.content)
        else:
            with quiet_transformers():
                model.encoder.hf.to(getattr(torch, _TORCH[arguments.precision])).save_pretrained(partial)
        _save_tokenizer(tokenizer, partial, model.encoder.max_positions)
        (partial / CARD).write_text(readme(record), encoding="utf-8")
        return record

    write_folder(folder, fill)
    _say_result(folder, made, quality, speed, problems)
    return 0


_TORCH = {"fp32": "float32", "bf16": "bfloat16"}


def _onnx(model: DeployedModel, arguments: argparse.Namespace) -> Made:
    beginnings = list(model.weight_filter(arguments.keep_fp32).values())
    graph = export_graph(model.exported, arguments.opset)
    content: bytes = graph.SerializeToString()
    fp32 = Session(content, threads=1)
    exact = parity(model.exported, fp32)
    if exact.relative > FP32_PARITY:
        raise LaunchError(
            f"{arguments.model}: expected the fp32 graph within {FP32_PARITY:g} of torch, got {exact.relative:.1e}; report this model"
        )
    fp32_bytes, session, near = len(content), fp32, exact
    parts = {name: "fp32" for name, weight in model.encoder.hf.named_parameters() if weight.ndim == 2}
    if arguments.precision == "int8":
        made = quantise(graph, model.exported, lambda name: any(name == one or name.startswith(f"{one}.") for one in beginnings))
        content, parts = made.graph.SerializeToString(), made.precisions
        session = Session(content, threads=1)
        near = parity(model.exported, session)
    record = {
        "model_format": "onnx",
        "precision": arguments.precision,
        "precision_by_part": parts,
        "opset": arguments.opset,
        "inputs": session.inputs,
        "outputs": session.outputs,
        "parity": {"inputs": "random ids", "fp32": asdict(exact), arguments.precision: asdict(near)},
    }
    return Made(content, session, fp32, record, len(content), fp32_bytes)


def _safetensors(model: DeployedModel, arguments: argparse.Namespace) -> Made:
    dtype = getattr(torch, _TORCH[arguments.precision])
    other = open_model(arguments.model, dtype)
    session, original = TorchSession(other.exported), TorchSession(model.exported)
    near = parity(model.exported, session)
    numbers = sum(weight.numel() for weight in model.encoder.hf.parameters())
    record = {
        "model_format": "safetensors",
        "precision": arguments.precision,
        "inputs": session.inputs,
        "outputs": session.outputs,
        "parity": {"inputs": "random ids", arguments.precision: asdict(near)},
    }
    return Made(None, session, original, record, numbers * dtype.itemsize, numbers * 4)


def _quality(model: DeployedModel, session: AnySession, arguments: argparse.Namespace) -> Quality | None:
    original = TorchSession(model.exported)
    if arguments.task_config:
        return task_quality(model, original, session, arguments.task_config, arguments.settings)
    if arguments.shards:
        if model.purpose != "masked_lm":
            raise LaunchError(f"--shards: expected a masked-language model, got {model.purpose}; give --task-config instead")
        return shards_quality(model, original, session, arguments.shards, arguments.windows)
    return None


def _speed(model: DeployedModel, made: Made) -> dict[str, Any]:
    tokens = min(SPEED_TOKENS, model.encoder.max_positions)
    arrays = input_arrays(made.session, 1, tokens, model.encoder.vocabulary)
    fp32, exported = measure([made.fp32, made.session], [arrays, arrays], REPETITIONS)
    before, after = (float(sorted(timing.cpu)[REPETITIONS // 2]) for timing in (fp32, exported))
    figures = {"fp32_ms": 1000 * before, "exported_ms": 1000 * after, "share_of_fp32": after / max(before, 1e-9)}
    return {"batch": 1, "tokens": tokens, "threads": 1, "clock": "CPU time, median, fp32 and exported in turns", **figures}


def _problems(made: Made, quality: Quality | None, speed: dict[str, Any] | None, arguments: argparse.Namespace) -> list[str]:
    """One line for each reason not to ship the model, with what to try next."""
    lines, precision = [], arguments.precision
    if quality is None and precision != "fp32":
        lines.append(f"{precision}: expected --task-config or --shards to compare it with the original on, got neither; give one")
    if quality is not None and quality.drop > arguments.max_drop:
        interval = f"{quality.low:.2f} to {quality.high:.2f}"
        change = f"{quality.metric} {quality.original:.4f} to {quality.exported:.4f}"
        got = f"got {quality.drop:.2f} ({interval}; {change})"
        lines.append(f"quality: expected at most {arguments.max_drop:g} points lost, {got}; try --keep-fp32 layers.0")
    if precision != "fp32" and made.bytes >= made.original_bytes:
        lines.append(f"size: expected fewer than {made.original_bytes:,} bytes, got {made.bytes:,}; keep fp32, or take a smaller student")
    if speed is not None and speed["share_of_fp32"] > 1:
        got = f"got {speed['exported_ms']:.2f} ms"
        lines.append(f"speed: expected at most fp32's {speed['fp32_ms']:.2f} ms of CPU time, {got}; keep fp32 on this machine")
    return lines


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


def _say_result(folder: Path, made: Made, quality: Quality | None, speed: dict[str, Any] | None, problems: list[str]) -> None:
    say(f"{folder}: {made.bytes / 1e6:.1f} MB, fp32 {made.original_bytes / 1e6:.1f} MB")
    if quality is not None:
        interval, difference = f"{quality.low:.2f} to {quality.high:.2f}", quality.largest_logit_difference
        say(f"  {quality.metric} {quality.exported:.4f}, original {quality.original:.4f}: {quality.drop:.2f} points lost ({interval})")
        say(f"  equal predictions {quality.agreement:.2%}, largest difference of logits {difference:.3g}; {quality.data}")
        if quality.remark:
            say(f"  {quality.remark}")
    else:
        say("  quality beside the original: not measured")
    if speed is not None:
        shape = f"{speed['batch']} x {speed['tokens']} tokens, one thread"
        say(f"  CPU time {speed['exported_ms']:.2f} ms, fp32 {speed['fp32_ms']:.2f} ms ({shape})")
    for problem in problems:
        say(f"  written in spite of: {problem}")
