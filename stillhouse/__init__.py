"""The Python interface: `import stillhouse`. Every name in NAMES is imported when it is first used, so importing the package is instant.

docs/python.md documents the names, and `__init__.pyi` types them. No other file of this package refers to the packages above it, which
import its submodules only.
"""

from importlib import import_module
from typing import Any

NAMES = {
    "StillhouseError": "stillhouse.errors",
    "load_config": "launcher.config.load",
    "build_shards": "launcher.api",
    "train": "launcher.api",
    "evaluate": "launcher.api",
    "load_model": "launcher.api",
    "make_student": "launcher.api",
    "LogitView": "kd.terms.views",
    "TokenView": "kd.terms.views",
    "SoftTargets": "kd.terms.logits",
    "MaskedLM": "kd.terms.logits",
    "LogitMSE": "kd.terms.logits",
    "HiddenCosine": "kd.terms.hidden",
    "HiddenMSE": "kd.terms.hidden",
    "EmbeddingMSE": "kd.terms.hidden",
    "Hints": "kd.terms.hidden",
    "Patient": "kd.terms.hidden",
    "AttentionKL": "kd.terms.attention",
    "AttentionMSE": "kd.terms.attention",
    "Relations": "kd.terms.attention",
    "Contrastive": "kd.terms.documents",
    "RelationalAngle": "kd.terms.documents",
    "RelationalDistance": "kd.terms.documents",
    "Similarity": "kd.terms.documents",
}
"""Name -> module that defines it."""


def __getattr__(name: str) -> Any:
    if name not in NAMES:
        raise AttributeError(f"module 'stillhouse' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(NAMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(NAMES)
