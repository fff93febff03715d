"""Modules that are imported at their first use, so that reading a configuration does not import torch (two seconds)."""

from importlib import import_module
from typing import Any


class lazy_module:
    """A module by name. It is imported when an attribute is first read.

    Use it under `if TYPE_CHECKING: import torch` / `else: torch = lazy_module("torch")`, so that type checkers see the module.
    importlib.util.LazyLoader was rejected. It puts an empty module into sys.modules, and other packages look for torch there.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self._name), attribute)
