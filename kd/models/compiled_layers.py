"""Transformer layers that run through torch.compile, each on its own: what `train.compile` asks for.

Fused are the additions, activations, norms and (on GPUs) dropout of a layer. Three things stay as they are: attention by document and the
masks of kd.kernels.dropout, which the host prepares, and layers whose inside a term reads, because compiled code runs no hooks.

torch compiles a layer at its first call, and once for all layers of the same shapes. Nothing is tuned by time, so a resumed run computes
with the same code.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from importlib import import_module
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from kd.errors import KdError
from kd.models.capture import INSIDE
from kd.models.encoder import Encoder
from kd.models.states import StateKey
from stillhouse.errors import one_line

FORMS = 64
"""Forms of one function that torch may keep: models, phases, with and without gradients. Above it, torch would go on without compiling."""
CODE = "TORCHINDUCTOR_CACHE_DIR"
"""The environment variable with a folder for compiled code. Headers are always in torch's usual folder."""
_PLAIN: list[bool] = []


@contextmanager
def plain_layers() -> Iterator[None]:
    """Layers run as they are meanwhile: for batches of shapes that are not worth compiling."""
    _PLAIN.append(True)
    try:
        yield
    finally:
        _PLAIN.pop()


def compile_layers(encoder: Encoder, states: Iterable[StateKey], varying: bool) -> str:
    """Compile the layers from their next call on; which are, in words. Parameters and their names stay the same.

    states: all that terms read of this encoder. varying: the batches have many shapes, so the code is made for any.
    """
    read = {state.layer % encoder.layers for state in states if state.kind in INSIDE}
    modules = encoder.layer_modules
    chosen = set(modules) - {modules[layer] for layer in read}
    if chosen:
        _prepare()
    for module in chosen:
        module.forward = _compiled(module, encoder.family.name, varying)
    reason = f" (terms read the inside of {len(read)})" if read else ""
    return f"{sum(module in chosen for module in modules)} of {encoder.layers} layers{reason}"


def _compiled(module: nn.Module, family: str, varying: bool) -> Callable[..., Any]:
    """The module's forward, compiled. KdError, at a call, if torch cannot."""
    layer: Any = module
    plain = layer.forward
    checkpoints = isinstance(module, GradientCheckpointingLayer)
    inside = MethodType(type(layer).forward.__wrapped__, layer) if checkpoints else plain  # the part that a checkpoint computes again
    fast = torch.compile(inside, dynamic=varying, options={"deterministic": True})
    failures = import_module("torch._dynamo.exc").ShortenTraceback

    @wraps(plain)
    def forward(*inputs: Any, **named: Any) -> Any:
        if _PLAIN:
            return plain(*inputs, **named)
        try:
            if checkpoints and layer.gradient_checkpointing and layer.training:
                return layer._gradient_checkpointing_func(partial(fast, **named), *inputs)
            return fast(*inputs, **named)
        except failures as failure:
            got = one_line(failure).split(" Set TORCH")[0][:200]  # what follows is for torch's developers
            raise KdError(f"train.compile: expected torch.compile to take a layer of {family}, got {got}; set it to false") from failure

    return forward


def _prepare() -> None:
    """Settings of torch's compiler in this process. A rank compiles by itself, so a killed run leaves no process behind.

    KdError if a folder that torch takes code from is another user's, who could put code there.
    """
    fusing: Any = import_module("torch._inductor.config")
    tracing: Any = import_module("torch._dynamo.config")
    fusing.compile_threads, tracing.recompile_limit = 1, FORMS
    folders = import_module("torch._inductor.runtime.cache_dir_utils")
    for folder in {Path(os.environ.get(CODE) or folders.default_cache_dir()), Path(folders.default_cache_dir())}:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (owner := folder.stat().st_uid) != os.getuid():
            raise KdError(
                f"{folder}: expected a folder of this user for compiled code, got one of user {owner}; set TMPDIR to another folder"
            )
