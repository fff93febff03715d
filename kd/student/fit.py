"""Fits a narrower encoder to the outputs of the wide one on a sample of text: least squares, from the embeddings to the head.

The narrow stream is C s, where s is the stream of the wide encoder. C selects dimensions, or projects on principal directions. S are the
wide states, and S' the narrow states at the same place. The weights are fitted in the order of the forward pass:

- A weight that writes the stream (output and down matrices, tables of embeddings) is multiplied by C.
- A weight W that reads the stream becomes W M. M, with an offset m, is the ridge regression of S on S': removed dimensions are estimated
  from kept ones. Matrices that read head dimensions and inner neurons are fitted in the same way.
- A LayerNorm keeps its form, a scale and a shift per channel, which are regressed on C S. Its mean is exact, because C maps (1, …, 1) to
  (1, …, 1). Its scale is not: diag(g) and a rotation do not commute unless g is constant. A projection loses there even at full width.
- The head's decoder is C applied to the embeddings, because the two are tied. Its transform is cut, or replaced by the best linear map:
  the one nearer to C times the wide output on the sample. The decoder's bias takes the mean of the rest.

Sources: layer-wise reconstruction: He, Zhang, Sun 2017, arXiv:1707.06168, eq. 1. Principal directions of a stream: SliceGPT (Ashkboos et
al. 2024, arXiv:2401.15024). SliceGPT has RMSNorms and so loses nothing at full width.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kd.batch import Batch
from kd.models.encoder import Encoder

Call = tuple[tuple[Any, ...], dict[str, Any]]
RIDGE = 1e-3  # of the mean variance
LINEAR = 6.0  # standard deviations by which activations are shifted to where they are the identity; LayerNorm takes the shift out again


def can_fit(encoder: Encoder) -> bool:
    """True if each norm of the stream follows a residual sum, and only layers, embeddings and head have the stream as an axis."""
    family = encoder.family
    plain = family.norm == "post" and not family.shared_layers and family.layer.fused_qkv is None
    return plain and not any("D" in letters for letters in family.extra.values())


@dataclass(frozen=True)
class Kept:
    """Dimensions of the wide encoder that the narrow one keeps: of the stream (None: principal directions instead), and of each layer."""

    stream: Tensor | None
    query_key: tuple[Tensor, ...]
    value: tuple[Tensor, ...]
    inner: tuple[Tensor, ...]


def fit(
    teacher: Encoder, chosen: Sequence[int], wide: Encoder, student: Encoder, kept: Kept, sample: Sequence[Batch], with_head: bool = True
) -> None:
    """Fit the weights of `student`, which begin as those of `wide` at the kept dimensions. `wide` has the teacher's chosen layers.

    with_head: also fit the MLM head's transform and LayerNorm.
    """
    with teacher.evaluating(), student.evaluating():
        _Fit(teacher, chosen, wide, student, sample).run(kept, with_head)


class _Fit:
    """The sample, the wide encoder's inputs on it, and the map into the narrow stream."""

    def __init__(self, teacher: Encoder, chosen: Sequence[int], wide: Encoder, student: Encoder, sample: Sequence[Batch]) -> None:
        self.wide, self.student, self.sample = wide, student, sample
        self.layers = range(wide.layers)
        watched = {("head", 0): teacher.part(teacher.family.head_dense)}
        for number, layer in enumerate(chosen):
            for part in ("query", "attention_output", "feed_forward_up", "feed_forward_down"):
                watched[part, number] = teacher.layer_part(layer, part)
        self.seen = self._inputs_of(teacher, watched)

    def run(self, kept: Kept, with_head: bool) -> None:
        """Fit every weight in the order of the forward pass."""
        self.onto = self._principal(self.student.width) if kept.stream is None else torch.eye(self.wide.width)[kept.stream]
        states = self._embeddings()
        self.calls = [self._first_call(batch) for batch in self.sample]
        smaller = (self.student.width // self.student.heads) / (self.wide.width // self.wide.heads)
        for layer in self.layers:
            back = regression(states, self.seen["query", layer])
            self._read("query", layer, kept.query_key[layer], back, scale=smaller**0.5)
            self._read("key", layer, kept.query_key[layer], back)
            self._read("value", layer, kept.value[layer], back)
            self._write("attention_output", layer)
            states = self._norm("attention_norm", layer, self.seen["feed_forward_up", layer])
            self._read("feed_forward_up", layer, kept.inner[layer], regression(states, self.seen["feed_forward_up", layer]))
            self._write("feed_forward_down", layer)
            after = self.seen["head", 0] if layer == self.layers[-1] else self.seen["query", layer + 1]
            states = self._norm("feed_forward_norm", layer, after)
            self.calls = [self._next_call(layer, call) for call in self.calls]
        if with_head:
            self._head(kept.stream, states)
            left = self.student.transform(states).mean(0)
            mean = self.wide.decoder_weight @ self.seen["z", 0].mean(0) - self.student.decoder_weight @ left
            self.student.decoder_bias.add_(mean)

    def _principal(self, width: int) -> Tensor:
        """[W, D]: orthonormal rows that keep most of the variance of the stream at all its places, and of the head's output.

        The direction (1, …, 1) of the wide stream becomes that of the narrow one. So a LayerNorm removes the same mean in both.
        """
        places = [states for (part, _), states in self.seen.items() if part in ("query", "feed_forward_up", "head", "z")]
        places = [states for states in places if states.shape[1] == self.wide.width]
        total = sum((covariance / covariance.trace() for covariance in map(_covariance, places)), torch.zeros(()))
        ones = torch.full((self.wide.width, 1), self.wide.width**-0.5, dtype=torch.float64)
        total = total - ones @ (ones.T @ total)
        total = total - (total @ ones) @ ones.T
        basis = torch.cat([ones, torch.linalg.eigh(total).eigenvectors.flip(1)[:, : width - 1]], dim=1)
        mirror = torch.full((width,), -(width**-0.5), dtype=torch.float64)  # between the first axis and the narrow (1, …, 1)
        mirror[0] += 1
        length = mirror.square().sum().clamp(min=1e-300)
        return (basis - 2 * (basis @ mirror)[:, None] * mirror / length).T.float()

    def _embeddings(self) -> Tensor:
        """Fit the embeddings; [N, W], the inputs of the first layer."""
        family, wide, student = self.wide.family, self.wide, self.student
        if family.embedding_projection is not None:
            source, target = wide.part(family.embedding_projection), student.part(family.embedding_projection)
            _set(target, self.onto @ _weight(source), self.onto @ _bias(source))
            return torch.cat([self._first_call(batch)[0][0][batch.real] for batch in self.sample])
        for path in (family.word_embeddings, family.position_embeddings, family.token_type_embeddings, family.decoder):
            if path is not None:
                student.weight(path).copy_(wide.weight(path) @ self.onto.T)
        norm = student.part(family.embedding_norm)
        inputs = torch.cat([_input(norm, batch, partial(student, batch)) for batch in self.sample])
        _fit_norm(norm, inputs, self.seen["query", 0] @ self.onto.T)
        return norm(inputs)

    def _read(self, part: str, layer: int, rows: Tensor, back: tuple[Tensor, Tensor], scale: float = 1.0) -> None:
        """Fit a matrix that reads the stream. back: the regression of the wide stream on the narrow one there."""
        target, source = self.student.layer_part(layer, part), self.wide.layer_part(layer, part)
        matrix, offset = back
        _set(target, _weight(source)[rows] @ matrix * scale, (_bias(source)[rows] + _weight(source)[rows] @ offset) * scale)

    def _write(self, part: str, layer: int) -> None:
        """Fit a matrix that reads the kept dimensions of a layer and writes the stream."""
        target, source = self.student.layer_part(layer, part), self.wide.layer_part(layer, part)
        matrix, offset = regression(self._inputs(target, layer), self.seen[part, layer])
        _set(target, self.onto @ (_weight(source) @ matrix), self.onto @ (_bias(source) + _weight(source) @ offset))

    def _norm(self, part: str, layer: int, wide_states: Tensor) -> Tensor:
        """Fit scale and shift of a LayerNorm, channel by channel; [N, W], its outputs then."""
        norm = self.student.layer_part(layer, part)
        inputs = self._inputs(norm, layer)
        _fit_norm(norm, inputs, wide_states @ self.onto.T)
        return norm(inputs)

    def _head(self, stream: Tensor | None, states: Tensor) -> None:
        """Fit the head's transform. states [N, W]: its inputs."""
        family, wide, student = self.wide.family, self.wide, self.student
        dense, source = student.part(family.head_dense), wide.part(family.head_dense)
        matrix, offset = regression(states, self.seen["head", 0])
        weight, bias = _weight(source) @ matrix, _bias(source) + _weight(source) @ offset
        wanted = self.seen["z", 0]
        if family.embedding_projection is not None:
            _set(dense, weight, bias)
        else:
            wanted = wanted @ self.onto.T
            norm = student.part(family.head_norm)
            errors = []
            if stream is not None:
                _set(dense, weight[stream], bias[stream])
                errors.append((self._head_error(norm, states, wanted), _copies(dense, norm)))
            linear, shift = regression(states, wanted)
            spread = float((states @ linear.T + shift).std())
            _set(dense, linear / spread, shift / spread + LINEAR)
            errors.append((self._head_error(norm, states, wanted), _copies(dense, norm)))
            for module, weights in zip((dense, norm), min(errors, key=lambda pair: pair[0])[1], strict=True):
                module.load_state_dict(weights)

    def _head_error(self, norm: nn.Module, states: Tensor, wanted: Tensor) -> float:
        """Fit the head's norm, and say how far its output then is from the one wanted."""
        inputs: list[Tensor] = []
        with _before(norm, inputs.append):
            self.student.transform(states)
        _fit_norm(norm, inputs[0], wanted)
        return float((self.student.transform(states) - wanted).square().mean())

    def _inputs(self, module: nn.Module, layer: int) -> Tensor:
        """[N, C]: the inputs of a module in one of the student's layers. Only that layer is run."""
        whole = self.student.layer_modules[layer]
        calls = zip(self.sample, self.calls, strict=True)
        return torch.cat([_input(module, batch, partial(whole, *call[0], **call[1])) for batch, call in calls])

    def _first_call(self, batch: Batch) -> Call:
        """The arguments of the student's first layer."""
        calls: list[Call] = []

        def take(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            calls.append((arguments, named))
            raise _ReachedError

        hook = self.student.layer_modules[0].register_forward_pre_hook(take, with_kwargs=True)
        with suppress(_ReachedError):
            self.student(batch)
        hook.remove()
        return calls[0]

    def _next_call(self, layer: int, call: Call) -> Call:
        """The arguments of the next layer: the output of this one, and the rest unchanged."""
        arguments, named = call
        given = self.student.layer_modules[layer](*arguments, **named)
        return (given[0] if isinstance(given, tuple) else given, *arguments[1:]), named

    def _inputs_of(self, teacher: Encoder, watched: dict[tuple[str, int], nn.Module]) -> dict[tuple[str, int], Tensor]:
        """The inputs of the teacher's modules, and as z the output of its head's transform."""
        found: dict[tuple[str, int], list[Tensor]] = {key: [] for key in [*watched, ("z", 0)]}
        for batch in self.sample:
            with ExitStack() as hooks:
                for key, module in watched.items():
                    hooks.enter_context(_before(module, lambda states, key=key, batch=batch: found[key].append(states[batch.real])))
                found["z", 0].append(teacher.transform(teacher(batch).last_hidden)[batch.real])
        return {key: torch.cat(states).float() for key, states in found.items()}


def regression(inputs: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """(M [C, W], m [C]) with wanted [N, C] as near to inputs [N, W] M^T + m as the ridge allows. Computed in float64."""
    mean, goal = inputs.double().mean(0), wanted.double().mean(0)
    centred = inputs.double() - mean
    gram = centred.T @ centred
    gram.diagonal().add_(RIDGE * gram.diagonal().mean())
    matrix = torch.linalg.solve(gram, centred.T @ (wanted.double() - goal)).T
    return matrix.float(), (goal - matrix @ mean).float()


def _fit_norm(norm: nn.Module, inputs: Tensor, wanted: Tensor) -> None:
    """Scale and shift of a LayerNorm by least squares of wanted [N, C] on its normalised inputs [N, C], channel by channel."""
    assert isinstance(norm, nn.LayerNorm)
    normal = nn.functional.layer_norm(inputs.double(), norm.normalized_shape, eps=norm.eps)
    goal = wanted.double()
    mean, wanted_mean = normal.mean(0), goal.mean(0)
    scale = ((normal - mean) * (goal - wanted_mean)).mean(0) / (normal - mean).square().mean(0).clamp(min=1e-12)
    norm.weight.copy_(scale)
    norm.bias.copy_(wanted_mean - scale * mean)


def _covariance(states: Tensor) -> Tensor:
    centred = states.double() - states.double().mean(0)
    return centred.T @ centred / len(states)


def _weight(module: nn.Module) -> Tensor:
    return module.weight.detach().float()  # type: ignore[operator, union-attr]


def _bias(module: nn.Module) -> Tensor:
    return module.bias.detach().float()  # type: ignore[operator, union-attr]


def _set(module: nn.Module, weight: Tensor, bias: Tensor) -> None:
    module.weight.copy_(weight)  # type: ignore[operator, union-attr]
    module.bias.copy_(bias)  # type: ignore[operator, union-attr]


def _copies(*modules: nn.Module) -> list[dict[str, Tensor]]:
    return [{name: weight.clone() for name, weight in module.state_dict().items()} for module in modules]


def _input(module: nn.Module, batch: Batch, run: Callable[[], Any]) -> Tensor:
    """[n, C]: the inputs of a module at the real positions of a batch, from `run`, which is stopped there."""
    found: list[Tensor] = []

    def take(states: Tensor) -> None:
        found.append(states[batch.real])
        raise _ReachedError

    with _before(module, take), suppress(_ReachedError):
        run()
    return found[0]


class _ReachedError(Exception):
    """Stops a forward pass: the module has its input."""


@contextmanager
def _before(module: nn.Module, take: Any) -> Iterator[None]:
    """Hand each input of a module to `take` meanwhile."""
    hook = module.register_forward_pre_hook(lambda _, inputs: take(inputs[0]) and None)
    try:
        yield
    finally:
        hook.remove()
