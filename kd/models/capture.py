"""A forward pass of an encoder that also keeps the states which some term asked for, and no others.

Hooks stand on the modules only during the pass, so a pass that keeps nothing costs nothing. What they keep is the tensor itself: gradients
flow through it. They see the same under DeepSpeed's ZeRO, which gathers a weight around each module's own forward. Under tensor parallelism
a rank keeps its heads of queries, keys and values (kd.teacher.teacher).

Under activation checkpointing a layer's inside exists twice, and its first life has no gradients. There, the states of its inside become
outputs of the checkpointed function, so that they are computed again, with the layer, in the backward pass.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from kd.batch import Batch
from kd.models.encoder import Encoder
from kd.models.outputs import EncoderOutputs
from kd.models.states import StateKey, StateKind

INSIDE: dict[StateKind, str] = {"queries": "query", "keys": "key", "values": "value"}
"""States inside a layer, and the part of kd.models.family.LAYER_PARTS that makes them."""


class _Place(NamedTuple):
    """The place of a state: input or output of a module, and the number of times that the module has run before in the pass.

    fused: queries, keys or values (0, 1, 2) of a module that gives all three side by side.
    """

    module: nn.Module
    end: Literal["input", "output"]
    before: int
    fused: int | None = None


class _Event(NamedTuple):
    module: nn.Module
    end: str
    tensor: Tensor


Keep = Callable[[_Event], None]
Watched = dict[nn.Module, set[str]]


def capture(encoder: Encoder, batch: Batch, wanted: frozenset[StateKey]) -> EncoderOutputs:
    """One forward pass, and the states asked for. Each must lie within the encoder's layers (see kd.terms, which checks)."""
    places = {state: _place(encoder, state) for state in wanted}
    watched: Watched = {}
    for place in places.values():
        if place is not None:
            watched.setdefault(place.module, set()).add(place.end)
    events: list[_Event] = []
    with ExitStack() as stack:
        for module in encoder.base.modules() if watched else ():
            if isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing and module.training:
                inside = {part: watched.pop(part) for part in module.modules() if part is not module and part in watched}
                stack.enter_context(_through_checkpoint(module, inside, events.append))
        for module, ends in watched.items():
            stack.enter_context(_watching(module, ends, events.append))
        outputs = encoder(batch)
    last = outputs.last_hidden
    return outputs._replace(states={state: last if place is None else _found(place, events) for state, place in places.items()})


def _found(place: _Place, events: list[_Event]) -> Tensor:
    tensor = [event.tensor for event in events if event.module is place.module and event.end == place.end][place.before]
    return tensor if place.fused is None else tensor.chunk(3, dim=-1)[place.fused]


def _place(encoder: Encoder, state: StateKey) -> _Place | None:
    """The place of a state; None: it is the encoder's own output."""
    layer = state.layer
    modules = encoder.layer_modules
    before = sum(module is modules[layer] for module in modules[:layer])  # layers may share their weights
    if state.kind == "embeddings":
        return _Place(modules[0], "input", 0)
    if state.kind == "hidden":
        if layer == encoder.layers - 1:
            return None
        if layer == 0 and encoder.has_convolution:  # it runs between layers 0 and 1, on what layer 0 gives
            return _Place(modules[1], "input", 0)
        return _Place(modules[layer], "output", before)
    if encoder.family.layer.fused_qkv is not None:
        fused = modules[layer].get_submodule(encoder.family.layer.fused_qkv)
        return _Place(fused, "output", before, list(INSIDE).index(state.kind))
    return _Place(encoder.layer_part(layer, INSIDE[state.kind]), "output", before)


@contextmanager
def _watching(module: nn.Module, ends: set[str], keep: Keep) -> Iterator[None]:
    """While inside, the inputs and outputs of the module are kept."""

    def before(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        keep(_Event(module, "input", inputs[0] if inputs else named["hidden_states"]))

    def after(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        keep(_Event(module, "output", output if isinstance(output, Tensor) else output[0]))

    handles = []
    if "output" in ends:
        handles.append(module.register_forward_hook(after))
    if "input" in ends:
        handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _through_checkpoint(layer: nn.Module, inside: Watched, keep: Keep) -> Iterator[None]:
    """While inside, a checkpointed layer hands out the states of its inside as outputs of its own."""
    checkpointed: Any = layer
    own = checkpointed._gradient_checkpointing_func

    def outwards(run: Callable[..., Any], *inputs: Any) -> Any:
        found: list[_Event] = []
        alone = True

        def widened(*again: Any) -> tuple[Any, ...]:
            nonlocal alone
            found.clear()
            with ExitStack() as stack:
                for module, ends in inside.items():
                    stack.enter_context(_watching(module, ends, found.append))
                output = run(*again)
            alone = isinstance(output, Tensor)
            return (*((output,) if alone else output), *(event.tensor for event in found))

        outputs = own(widened, *inputs)
        split = len(outputs) - len(found)
        for event, tensor in zip(found, outputs[split:], strict=True):
            keep(event._replace(tensor=tensor))
        found.clear()
        return outputs[0] if alone else tuple(outputs[:split])

    checkpointed._gradient_checkpointing_func = outwards
    try:
        yield
    finally:
        checkpointed._gradient_checkpointing_func = own
