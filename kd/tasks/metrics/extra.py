"""Packages of the extra `stillhouse[tasks]`, imported at first use."""

from importlib import import_module
from typing import Any

from kd.errors import KdError

INSTALL = "pip install 'stillhouse[tasks]'"
DISTRIBUTIONS = {"sklearn": "scikit-learn", "scipy": "scipy"}


def tasks_module(name: str) -> Any:
    """A module of scikit-learn or scipy by its dotted name. Raises KdError with the install command where the package is missing."""
    try:
        return import_module(name)
    except ImportError as error:
        package = DISTRIBUTIONS.get(name.split(".")[0], name)
        raise KdError(f"task metrics: expected the package {package}, got {error}; run {INSTALL}") from None
