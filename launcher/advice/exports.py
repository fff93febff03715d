"""The exports of the models of a task, found by the digest of the weights that they were made from."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from launcher.advice.files import Measured
from launcher.advice.option import Option


def exports_of(measured: Measured, models: Sequence[Option]) -> tuple[list[Option], int]:
    """The exports of these models, found by the digest of their weights; and how many exports are of others."""
    digests: dict[str, tuple[Option, Path]] = {}
    for model in models:
        for folder in model.folders:
            for file in sorted(folder.glob("model.safetensors")):
                digests[tensors_digest(file)] = model, folder
    made, foreign = [], 0
    for path, record in measured.exports.items():
        found = digests.get(record.get("made_from", {}).get("weights_sha256", ""))
        if found is None:
            foreign += 1
            continue
        origin, folder = found
        quality = record.get("quality") or {}
        value = quality.get("exported") if quality.get("metric") == origin.metric else None
        retained, interval = _retention(origin, quality) if value is not None else (None, None)
        made.append(
            Option(
                name=origin.name,
                form=f"{record['model_format']} {record['precision']}",
                folder=path.parent,
                teacher=origin.teacher,
                metric=origin.metric,
                value=value,
                retained=retained,
                retained_interval=interval,
                bytes=record["bytes"],
                seconds=origin.seconds,
                device=origin.device,
                config=folder.parent / "config.yaml" if origin.config is not None else None,
                seed=folder.parent.name.replace("-", " ") if len(origin.folders) > 1 else None,
                folders=(folder,),
                files=weight_files(record["files"]),
            )
        )
    return made, foreign


def _retention(origin: Option, quality: dict[str, Any]) -> tuple[float | None, list[float] | None]:
    """Retention of the original times the share that the export keeps on the same rows, and its interval.

    Its ends are the products of the ends of both intervals, so it is rather too wide.
    """
    before = quality.get("original")
    if not before or origin.retained is None:
        return None, None
    share, ends = quality["exported"] / before, [(before - quality[end] / 100) / before for end in ("high", "low")]
    whole = origin.retained_interval or [origin.retained, origin.retained]
    return origin.retained * share, [one * end for one, end in zip(whole, sorted(ends), strict=True)]


def weight_files(files: dict[str, str]) -> dict[str, str]:
    """The digests of the files that hold weights."""
    return {name: digest for name, digest in files.items() if name.endswith((".safetensors", ".onnx", ".onnx.data", ".bin"))}


def tensors_digest(file: Path) -> str:
    """The digest that kd.models.loading.weights_digest has for a model whose parameters are the tensors of this file."""
    digest = hashlib.sha256()
    with safe_open(str(file), framework="pt") as tensors:
        for name in sorted(tensors.keys()):
            weight = tensors.get_tensor(name)
            digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
            digest.update(weight.contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
