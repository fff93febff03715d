"""One teacher or several: which of them teach an update, and which outputs the terms get.

mean: all teach every update. Terms on distributions get the weighted mean (kd.objective.teacher_outputs). Other terms get the one teacher
that they name.
random: one teaches an update, drawn with the weights as probabilities. The draw depends on seed and update alone, not on ranks or
restarts.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch

from kd.distributed import process_group
from kd.errors import KdError
from kd.models.compiled_layers import compile_layers
from kd.models.config import read_config
from kd.models.encoder import Encoder
from kd.models.loading import load_mlm
from kd.models.outputs import Decoder
from kd.models.states import EncoderShape, StateKey
from kd.objective.objective import Objective
from kd.objective.selection import Selection
from kd.objective.teacher_outputs import TeacherOutputs
from kd.teacher.hidden_state_cache import DTYPES, Positions
from kd.teacher.modes import MODES
from kd.teacher.settings import MemberSettings, Mixing, TeacherSettings
from kd.teacher.teacher import FrozenEncoder, ReplicatedTeacher, Teacher
from kd.terms.layer_map import LayerSources

MASK = (1 << 64) - 1


class Teachers:
    """The teachers of a run: none, one, or several."""

    def __init__(self, members: Sequence[Teacher], weights: Sequence[float] = (1.0,), mixing: Mixing = "mean", seed: int = 1) -> None:
        self.members = members
        self.weights = shares(weights)
        self.mixing = mixing
        self.seed = seed
        self.shapes = [member.shape for member in members]

    def present(self, update: int) -> list[Teacher]:
        """The teachers of an update."""
        if len(self.members) > 1 and self.mixing == "random":
            return [self.members[drawn(self.seed, update, self.weights)]]
        return list(self.members)

    def compile_layers(self, objectives: Sequence[Objective], varying: bool) -> list[str]:
        """Compile the layers of each teacher that computes on one rank; which are, in words. See kd.models.compiled_layers."""
        found = []
        for number, member in enumerate(self.members):
            name = "teacher" if len(self.members) == 1 else f"teacher {number}"
            if isinstance(member, ReplicatedTeacher):
                asked = 0 if self.mixing == "random" else number  # the one that is drawn counts as the first
                states = frozenset[StateKey]().union(*(objective.teacher_states(asked) for objective in objectives))
                found.append(f"{name} {compile_layers(member.module.encoder, states, varying)}")
            else:
                found.append(f"{name} none (it does not compute whole on one rank)")
        return found

    @contextmanager
    def teach(self, update: int, selection: Selection, objective: Objective, vocabulary: int) -> Iterator[TeacherOutputs]:
        """The outputs that an update's objective needs of its teachers. Collective.

        A sharded decoder is whole only inside the context.
        """
        present = self.present(update)
        with ExitStack() as stack:
            outputs = {}
            for number, teacher in enumerate(present):
                needs = objective.needs_of(number)
                if not needs:
                    continue
                result = teacher(selection.batch_of(number), selection.logits, objective.teacher_states(number))
                outputs[number] = result
                if result.logits is not None:
                    outputs[number] = result._replace(logits=selection.rows(result.logits, number))
                elif "logits" in needs:
                    weight, bias = stack.enter_context(teacher.decoder())
                    outputs[number] = outputs[number]._replace(decoder=Decoder(weight, bias, vocabulary))
            yield TeacherOutputs(outputs, self.weights if len(present) > 1 else (1.0,))


class TeacherModels:
    """Teacher models by number. Each is read from its files once."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = paths
        self._whole: dict[int, Encoder] = {}

    def whole(self, number: int) -> Encoder:
        """Teacher `number`, fp32, on the CPU. It is kept until `take`."""
        if number not in self._whole:
            self._whole[number] = load_mlm(self.paths[number])
        return self._whole[number]

    def take(self, number: int, dtype: torch.dtype) -> Encoder:
        """Teacher `number` with weights of this dtype. The caller owns it."""
        if number not in self._whole:
            return load_mlm(self.paths[number], dtype=dtype)
        encoder = self._whole.pop(number)
        for weight in encoder.parameters():  # not .to(dtype): from_pretrained keeps buffers (rotary frequencies) in fp32
            weight.data = weight.data.to(dtype)
        return encoder


def make_teacher(settings: TeacherSettings, precision: str, device: torch.device, encoder: Encoder | None = None) -> Teacher:
    """The teacher of these settings on this rank. precision: the run's, "fp32" or "bf16". Collective for the split modes.

    encoder: its model in the teacher's own dtype, if it was read before; the teacher then owns it.

    Raises KdError for a model that cannot be read or has no MLM head. It also raises KdError if the model does not divide over the ranks,
    or is not that of its cache.
    """
    mode = MODES[settings.mode]
    mode.check(settings.model, read_config(settings.model), process_group.world_size())
    module = FrozenEncoder(encoder or load_mlm(settings.model, dtype=DTYPES[settings.precision or precision]))
    return mode.make(module, settings, device)


def make_teachers(
    members: Sequence[MemberSettings],
    mixing: Mixing,
    seed: int,
    precision: str,
    device: torch.device,
    models: TeacherModels | None = None,
    attention: Mapping[str, str] | None = None,
) -> Teachers:
    """The teachers of these settings on this rank. Collective for the split modes.

    models: those that were read before. attention: the implementation by the teacher's precision; None: sdpa.
    """
    models = models or TeacherModels([member.model for member in members])
    made = []
    for number, member in enumerate(members):
        own = member.precision or precision
        encoder = models.take(number, DTYPES[own])
        encoder.use_attention((attention or {}).get(own, "sdpa"))
        made.append(make_teacher(member, precision, device, encoder))
    return Teachers(made, [member.weight for member in members] or (1.0,), mixing, seed)


def fit_objective(
    objective: Objective, student: EncoderShape, teachers: Sequence[EncoderShape], mixing: Mixing, sources: LayerSources | None = None
) -> Objective:
    """The objective for these encoders (Objective.for_encoders). With mixing random, one size must fit all teachers."""
    if mixing != "random" or len(teachers) < 2:
        return objective.for_encoders(student, *teachers, sources=sources)
    sizes = [(shape.layers, shape.width, shape.heads) for shape in teachers]
    if objective.on_states and len(set(sizes)) > 1:
        listed = " and ".join(f"{layers} layers x {width}, {heads} heads" for layers, width, heads in dict.fromkeys(sizes))
        kinds = ", ".join(term.kind for term in objective.on_states)
        raise KdError(
            f"teacher: expected teachers of one size for {kinds} with teacher_mixing: random, got {listed}; use mean, and name one a term"
        )
    first, *_ = [objective.for_encoders(student, shape, sources=sources) for shape in teachers]  # each is checked
    return first


def check_provides(objective: Objective, number: int, provides: frozenset[str], positions: Positions) -> None:
    """Raise KdError, one line, for a term that needs an output, or positions, that teacher `number` does not provide."""
    for one in objective.named:
        required = objective.required_of(one.term, number)
        if missing := required - provides:
            raise KdError(
                f"{one.key}: expected a teacher that gives {', '.join(sorted(missing))}, got a cached one, which gives "
                f"{' and '.join(sorted(provides))}; use another mode, or drop the term"
            )
        if required and positions == "masked" and not one.term.masked_only:
            raise KdError(
                f"{one.key}: expected a cache of all positions, got one of masked positions alone; "
                "fill another folder (stillhouse cache), or set the term's positions: masked"
            )


def drawn(seed: int, update: int, weights: Sequence[float]) -> int:
    """The number of the teacher that is drawn in an update. weights: their probabilities, which sum to 1."""
    state = (seed * 0x9E3779B97F4A7C15 + update * 0xD1B54A32D192ED03 + 0x632BE59BD9B4E019) & MASK
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # splitmix64's finaliser (Steele et al. 2014)
        state = (state ^ (state >> shift)) * factor & MASK
    share = (state ^ (state >> 31)) / 2**64
    for number, weight in enumerate(weights):
        share -= weight
        if share < 0:
            return number
    return len(weights) - 1


def shares(weights: Sequence[float]) -> tuple[float, ...]:
    """Weights that sum to 1."""
    total = sum(weights)
    return tuple(weight / total for weight in weights)
