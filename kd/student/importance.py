"""Importance of each stream dimension, head, head dimension and inner neuron of an encoder, from its weights or its activations on text.

magnitude: norms of the weights that write and read a dimension (Han et al. 2015, arXiv:1506.02626; by groups: Li et al. 2017,
arXiv:1608.08710).
activation: energy of a dimension on a sample, times the norms of the weights that read it. This is the energy that goes missing when the
dimension is removed (after Sun et al. 2023, arXiv:2306.11695, eq. 1). It is by groups and without the mean, which a bias can carry.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kd.batch import Batch
from kd.models.encoder import Encoder
from kd.student.axes import axes
from kd.student.presets import dimensions_of


@dataclass(frozen=True)
class LayerScores:
    """query_key, value [A]: head dimensions, head after head. inner [I]."""

    query_key: Tensor
    value: Tensor
    inner: Tensor

    def heads(self, count: int) -> Tensor:
        """[H]: what the values of a head bring into the stream."""
        return self.value.view(count, -1).sum(1)


@dataclass(frozen=True)
class Scores:
    """stream [D]; one LayerScores a layer (one in all where the family shares its layers). float64; only the order in a vector counts."""

    stream: Tensor
    layers: tuple[LayerScores, ...]


@dataclass(frozen=True)
class LayerWeights:
    """The matrices of one layer, [rows, columns] float64: query, key, value [A, D], output [D, A], up [I or 2I, D], down [D, I]."""

    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    up: Tensor
    down: Tensor


def layer_weights(encoder: Encoder) -> list[LayerWeights]:
    """The matrices of each layer that has weights of its own."""
    found = []
    for layer in own_layers(encoder):
        paths = encoder.family.layer
        get = lambda path, layer=layer: layer.get_submodule(path).weight.detach().double()  # noqa: E731
        if paths.fused_qkv is not None:
            query, key, value = get(paths.fused_qkv).chunk(3)
        else:
            query, key, value = (get(path) for path in (paths.query, paths.key, paths.value))
        output, up, down = (get(path) for path in (paths.attention_output, paths.feed_forward_up, paths.feed_forward_down))
        found.append(LayerWeights(query, key, value, output, up, down))
    return found


def own_layers(encoder: Encoder) -> list[nn.Module]:
    """The layers without repetition."""
    return list(encoder.part(encoder.family.layers).children())


def by_magnitude(encoder: Encoder) -> Scores:
    """Scores from the weights alone. Every matrix that has the stream as an axis counts equally there, for any size."""
    stream = torch.zeros(encoder.width, dtype=torch.float64)
    known = axes(encoder)
    for name, weight in encoder.hf.named_parameters():
        letters = known[name][0]
        squares = weight.detach().double().square()
        for axis, letter in enumerate(letters):
            if letter == "D" and weight.dim() >= 2:
                along = squares.sum([other for other in range(weight.dim()) if other != axis])
                stream += along / along.sum().clamp(min=1e-300)
    return Scores(stream, tuple(_magnitudes(weights) for weights in layer_weights(encoder)))


def _magnitudes(weights: LayerWeights) -> LayerScores:
    rows, columns = (lambda matrix: matrix.square().sum(1)), (lambda matrix: matrix.square().sum(0))
    up = rows(weights.up).view(-1, weights.down.shape[1]).sum(0)  # of a gated layer both halves
    return LayerScores(rows(weights.query) * rows(weights.key), rows(weights.value) * columns(weights.output), up * columns(weights.down))


def by_activation(encoder: Encoder, sample: Sequence[Batch]) -> Scores:
    """Scores from what an encoder does on a sample of text, padding left out."""
    seen = _Seen()
    weights, paths = layer_weights(encoder), encoder.family.layer
    inputs: list[tuple[str, nn.Module]] = [("head", encoder.part(encoder.family.head_dense))]
    outputs: list[tuple[str, nn.Module]] = []
    for number, layer in enumerate(own_layers(encoder)):
        first = paths.fused_qkv or paths.query
        assert first is not None
        named = {"stream": first, "context": paths.attention_output, "up": paths.feed_forward_up, "inner": paths.feed_forward_down}
        inputs += [(f"{number}.{name}", layer.get_submodule(path)) for name, path in named.items()]
        projections = {"query": paths.query, "key": paths.key, "qkv": paths.fused_qkv}
        outputs += [(f"{number}.{name}", layer.get_submodule(path)) for name, path in projections.items() if path is not None]
    with torch.no_grad(), encoder.evaluating(), seen.watching(inputs, outputs):
        for batch in sample:
            seen.real = batch.real
            encoder.transform(encoder(batch).last_hidden[batch.real])
    # A rescaled stream is the same stream: variances, as a constant goes into biases.
    stream = seen.variance("head") * _columns(encoder.weight(encoder.family.head_dense))
    layers = []
    for number, matrices in enumerate(weights):
        readers = (matrices.query, matrices.key, matrices.value)
        stream = stream + seen.variance(f"{number}.stream") * sum(_columns(matrix) for matrix in readers)
        stream = stream + seen.variance(f"{number}.up") * _columns(matrices.up)
        if paths.fused_qkv is not None:
            query, key, _ = seen.energy(f"{number}.qkv").chunk(3)
        else:
            query, key = seen.energy(f"{number}.query"), seen.energy(f"{number}.key")
        value = seen.variance(f"{number}.context") * _columns(matrices.output)
        layers.append(LayerScores(query * key, value, seen.variance(f"{number}.inner") * _columns(matrices.down)))
    return Scores(stream, tuple(layers))


def _columns(matrix: Tensor) -> Tensor:
    return matrix.detach().double().square().sum(0)


class _Seen:
    """Sums and sums of squares over the real positions of what passes some modules."""

    def __init__(self) -> None:
        self.real = torch.zeros(0, 0, dtype=torch.bool)
        self._sums: dict[str, tuple[Tensor, Tensor, int]] = {}

    def energy(self, name: str) -> Tensor:
        """[C] float64: mean square."""
        _, squares, count = self._sums[name]
        return squares / count

    def variance(self, name: str) -> Tensor:
        """[C] float64"""
        sums, squares, count = self._sums[name]
        return (squares / count - (sums / count).square()).clamp(min=0)

    @contextmanager
    def watching(self, inputs: list[tuple[str, nn.Module]], outputs: list[tuple[str, nn.Module]]) -> Iterator[None]:
        """Meanwhile add up what goes into and comes out of these modules."""
        hooks: list[Any] = [
            module.register_forward_pre_hook(lambda module, given, name=name: self._add(name, given[0])) for name, module in inputs
        ]
        hooks += [module.register_forward_hook(lambda module, given, out, name=name: self._add(name, out)) for name, module in outputs]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _add(self, name: str, states: Tensor) -> None:
        if states.dim() == 3 and states.shape[:2] != self.real.shape:
            return  # DeBERTa projects its table of relative positions with the same matrices
        states = (states[self.real] if states.dim() == 3 else states).double()
        sums, squares, count = self._sums.get(name, (torch.zeros(()), torch.zeros(()), 0))
        self._sums[name] = (sums + states.sum(0), squares + states.square().sum(0), count + len(states))


def strongest(scores: Tensor, count: int) -> Tensor:
    """The `count` places of highest score, ascending; of equal ones the lower place."""
    return torch.sort(scores, descending=True, stable=True).indices[:count].sort().values


def head_dimensions(scores: Tensor, heads: Tensor, of_heads: int, size: int) -> Tensor:
    """Places [len(heads) * size] of the strongest dimensions inside each chosen head, head after head. scores [A]."""
    per_head = scores.view(of_heads, -1)
    width = per_head.shape[1]
    return torch.cat([head * width + strongest(per_head[head], size) for head in heads.tolist()])


def check_scores(encoder: Encoder, scores: Scores) -> None:
    """The scores are those of such an encoder."""
    assert len(scores.stream) == encoder.width
    assert {len(layer.inner) for layer in scores.layers} == {dimensions_of(encoder).inner}
