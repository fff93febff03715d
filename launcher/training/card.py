"""The content of a run's model card: configuration, corpus, scores and machine, without a path or a host name."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import torch

from data_shards.storage.manifest import Manifest
from kd.distributed import process_group
from kd.evaluation.mlm import MlmScores
from kd.export.model_card import CardFacts, is_hub_name, model_title, public_name
from kd.training.phases import Phase
from launcher.config.load import public_values
from launcher.config.run_config import RunConfig
from launcher.config.yaml_file import dump_yaml
from launcher.run_folder.folder import environment
from launcher.text import duration

PACKAGES = ("stillhouse", "torch", "deepspeed", "transformers")


def card_facts(
    config: RunConfig, manifest: Manifest, report: dict[str, Any], scores: MlmScores | None, phases: Sequence[Phase]
) -> CardFacts:
    """The facts of a finished run. report: what report.json holds."""
    teachers = [member.model for member in config.members.values()]
    began = [config.student.init] if config.student.init != "teacher" else []
    return CardFacts(
        title=config.name,
        teachers=[model_title(model) for model in teachers],
        base_models=list(dict.fromkeys(model for model in [*teachers, *began] if is_hub_name(model))),
        datasets=_datasets(manifest),
        training=_training(config, report),
        data=_data(manifest),
        objective=[(phase.name, phase.terms) for phase in phases],
        objective_yaml=dump_yaml(_objective(phases)),
        scores={key: value for key, value in scores.values.items() if value is not None} if scores is not None else {},
        predicted_tokens=scores.tokens if scores is not None else 0,
        machine=machine(report["ranks"]),
        window_tokens=config.data.window_tokens,
        configuration=dump_yaml(public_configuration(config)),
        commands=_commands(config, manifest, report["ranks"]),
    )


def public_configuration(config: RunConfig) -> dict[str, Any]:
    """Every setting of a run that another machine can use: paths are reduced to their last part, reports and folders are left out."""
    values = public_values(config)
    del values["report"]
    values["run"] = {"folder": f"runs/{config.name}", "name": config.name}
    values["data"] |= {"shards": f"shards/{_last_part(config.data.shards)}", "cache_folder": None}
    teachers = values["teacher"] if isinstance(values["teacher"], list) else [values["teacher"]] if values["teacher"] else []
    for teacher in teachers:
        teacher["model"] = public_name(teacher["model"])
        if teacher.get("cache") is not None:
            teacher["cache"] = f"caches/{_last_part(teacher['cache'])}"
    if values["student"]["init"] != "teacher":
        values["student"]["init"] = public_name(values["student"]["init"])
    return values


def machine(ranks: int) -> dict[str, Any]:
    """The hardware of a run, as rows of a table: processor or GPU, memory, ranks."""
    facts = environment()
    rows: dict[str, Any] = {"processor": f"{_processor()}, {facts['cpus']} cores", "memory": f"{facts['memory_gb']} GB"}
    if process_group.device().type == "cuda":
        rows = {"GPU": torch.cuda.get_device_name(), **rows}
    return {**rows, "ranks": ranks}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _training(config: RunConfig, report: dict[str, Any]) -> dict[str, Any]:
    facts, student = environment(), config.student
    origin = f"layers {student.layers} of the teacher" if student.init == "teacher" else model_title(student.init)
    return {
        "teacher": ", ".join(model_title(member.model) for member in config.members.values()) or "none",
        "begun from": origin,
        "updates": report["updates"],
        "windows per update": config.train.global_batch,
        "tokens per window": config.data.window_tokens,
        "tokens": report["tokens"],
        "learning rate": config.optimizer.learning_rate,
        "precision": report["precision"],
        "time": f"{duration(report['elapsed_seconds'])}, {report['tokens_per_second']:,.0f} tokens/s",
        "software": ", ".join(f"{name} {facts['packages'].get(name)}" for name in PACKAGES),
        **({"commit": facts["commit"]} if facts["commit"] else {}),
    }


def _data(manifest: Manifest) -> dict[str, Any]:
    rows: dict[str, Any] = {"data sets": ", ".join(_datasets(manifest))} if _datasets(manifest) else {}
    for split, name in (("train", "training"), ("heldout", "held-out")):
        rows |= {f"{name} documents": manifest.documents(split), f"{name} tokens": manifest.tokens(split)}
    return rows | {
        "duplicate documents dropped": manifest.built_from.duplicate,
        "fingerprint of the shards": f"`{manifest.fingerprint}`",
        "fingerprint of the tokenizer": f"`{manifest.tokenizer_fingerprint}`",
    }


def _datasets(manifest: Manifest) -> list[str]:
    """Hub names of the corpus's data sets."""
    sources = manifest.built_from.settings.get("sources") or []
    names = [str(source.get("path")) for source in sources if isinstance(source, dict) and source.get("kind") == "dataset"]
    return [name for name in dict.fromkeys(names) if is_hub_name(name)]


def _objective(phases: Sequence[Phase]) -> dict[str, Any]:
    """The objective without the settings that have their defaults."""
    lists = [[{"kind": term.kind} | term.model_dump(mode="json", exclude_defaults=True) for term in phase.terms] for phase in phases]
    if len(phases) == 1:
        return {"objective": lists[0]}
    return {"phases": [{"name": phase.name, "objective": terms} for phase, terms in zip(phases, lists, strict=True)]}


def _commands(config: RunConfig, manifest: Manifest, ranks: int) -> list[str]:
    """The commands that make the shards and the model again."""
    made = manifest.built_from.settings
    tokenizer = public_name(str(made.get("tokenizer", "TOKENIZER")))
    options = [f"--tokenizer {tokenizer}", f"--heldout {made.get('heldout', 0.01)}", f"--seed {made.get('seed', 1)}"]
    options += ["--drop-duplicates"] if made.get("drop_duplicates") else []
    shards = f"shards/{_last_part(config.data.shards)}"
    start = "stillhouse" if ranks == 1 else f"torchrun --nproc-per-node {ranks} -m launcher.cli"
    return [
        f"stillhouse shards build --out {shards} {' '.join(options)} TEXTS",
        f"stillhouse shards info {shards}   # shards {manifest.fingerprint[:12]}…",
        f"{start} train --config config.yaml",
    ]


def _last_part(path: str) -> str:
    """The last folder of a path or URL; `shards` for a URL without one, because its host part may hold a password."""
    if "://" not in path:
        return os.path.basename(os.path.abspath(path))
    return PurePosixPath(urlsplit(path).path).name or "shards"
