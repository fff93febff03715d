"""A forward pass of an encoder that also keeps the states which some term asked for, and no others.

Hooks stand on the modules only during the pass, so a pass that keeps nothing costs nothing. What they keep is the tensor itself: gradients
flow through it. They see the same under DeepSpeed's ZeRO (which gathers a weight around each module's own forward) and under tensor
parallelism (where a rank keeps its heads of queries, keys and values: see kd.teacher).

Under activation checkpointing a layer's inside exists twice, and its first life has no gradients. There, the states of its inside become
outputs of the checkpointed function, so that they are computed again, with the layer, in the backward pass.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from kd.batch import Batch
from kd.models import Encoder
from kd.states import Part, State

INSIDE: dict[Part, str] = {"queries": "query", "keys": "key", "values": "value"}
"""States inside a layer, and the part of kd.families.LAYER_PARTS that makes them."""


class Captured(NamedTuple):
    """last: [B, S, D], the encoder's output; states: what was asked for, each [B, S, its width]."""

    last: Tensor
    states: dict[State, Tensor]


class _Event(NamedTuple):
    module: nn.Module
    part: Part
    tensor: Tensor


Keep = Callable[[_Event], None]


def capture(encoder: Encoder, batch: Batch, wanted: frozenset[State]) -> Captured:
    """One forward pass, and the states asked for. Each must lie within the encoder's layers (see kd.terms, which checks)."""
    places = {state: _place(encoder, state) for state in wanted}
    events: list[_Event] = []
    watched = _grouped(place for place in places.values() if place is not None)
    with ExitStack() as stack:
        for layer in dict.fromkeys(encoder.layer_modules):
            if getattr(layer, "gradient_checkpointing", False) and layer.training:
                inside = {module: watched.pop(module) for module in layer.modules() if module is not layer and module in watched}
                stack.enter_context(_through_checkpoint(layer, inside, events.append))
        for module, parts in watched.items():
            stack.enter_context(_watched(module, parts, events.append))
        last = encoder(batch).last
    states = {}
    for state, place in places.items():
        if place is None:
            states[state] = last
        else:
            module, part, times_before = place
            found = [event.tensor for event in events if event.module is module and event.part == part]
            states[state] = found[times_before]
    return Captured(last, states)


_Place = tuple[nn.Module, Part, int]
"""Module, part, and how often the module has run before in the pass (0, but where layers share their weights)."""


def _place(encoder: Encoder, state: State) -> _Place | None:
    """Where a state can be seen; None: it is the encoder's own output."""
    layer = state.at(encoder.layers)
    modules = encoder.layer_modules
    if state.part == "hidden" and layer == encoder.layers - 1:
        return None
    before = sum(module is modules[layer] for module in modules[:layer])
    if state.part in INSIDE:
        return encoder.layer_part(layer, INSIDE[state.part]), state.part, before
    return modules[layer], state.part, before


def _grouped(places: Iterable[_Place]) -> dict[nn.Module, set[Part]]:
    grouped: dict[nn.Module, set[Part]] = {}
    for module, part, _ in places:
        grouped.setdefault(module, set()).add(part)
    return grouped


@contextmanager
def _watched(module: nn.Module, parts: set[Part], keep: Keep) -> Iterator[None]:
    """While inside, whatever the module takes in (embeddings) or gives (all others) is kept."""

    def before(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        keep(_Event(module, "embeddings", inputs[0] if inputs else named["hidden_states"]))

    def after(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        for part in parts - {"embeddings"}:
            keep(_Event(module, part, output if isinstance(output, Tensor) else output[0]))

    handles = [module.register_forward_hook(after)]
    if "embeddings" in parts:
        handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _through_checkpoint(layer: nn.Module, inside: Mapping[nn.Module, set[Part]], keep: Keep) -> Iterator[None]:
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
                for module, parts in inside.items():
                    stack.enter_context(_watched(module, parts, found.append))
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
