"""Students: made from chosen layers of a teacher, or loaded from a folder; then what of them trains.

`make_student` is the only door. A student is a plain Hugging Face model (kd.models.encoder.Encoder around it): nothing of the lesson
is inside.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, DistilBertConfig, PreTrainedConfig

from kd.batch import Batch
from kd.errors import KdError
from kd.models.encoder import Encoder
from kd.models.families import FAMILIES, LAYER_PARTS
from kd.models.loading import load_mlm, untrained, with_new_head
from kd.student.fit import can_fit
from kd.student.narrow import narrow
from kd.student.presets import PRESETS, Dimensions, dimensions_of, narrowed
from kd.student.settings import StudentSettings, chosen_layers


def make_student(settings: StudentSettings, teacher: Encoder | None, seed: int, sample: Sequence[Batch] = ()) -> Encoder:
    """The student, fp32 on the CPU in train mode; deterministic in seed. The teacher is read, never changed, and shares no weight with it.

    sample: text of the corpus, for a student that is made smaller by what the teacher does on it (settings.needs_sample).
    Raises KdError when the teacher is missing or too short, or when the architecture asked for cannot represent it.
    """
    if settings.init != "teacher":
        student = with_new_head(settings.init, seed) if settings.new_head else load_mlm(settings.init)
    elif teacher is None:
        raise KdError("student.init: expected a teacher to take layers from, got teacher: null; name a model folder instead")
    else:
        student = _from_teacher(settings, teacher, seed, sample)
    if settings.dropout is not None:
        set_dropout(student, settings.dropout)
    _set_trainable(student, settings)
    return student.train()


def student_of_config(settings: StudentSettings, values: dict[str, Any]) -> Encoder:
    """A student of a saved model configuration, with random weights: fp32 on the CPU in train mode. A checkpoint fills in the weights."""
    config = AutoConfig.for_model(**values)
    with torch.random.fork_rng(devices=[]):
        student = untrained(config)
    if settings.dropout is not None:
        set_dropout(student, settings.dropout)
    _set_trainable(student, settings)
    return student.train()


def _from_teacher(settings: StudentSettings, teacher: Encoder, seed: int, sample: Sequence[Batch]) -> Encoder:
    layers, shape = chosen_layers(settings, teacher.layers, seed), _shape(settings, teacher)
    same = settings.architecture == "same" or teacher.family.name == "distilbert"
    config = _same_config(teacher, layers) if same else _distilbert_config(teacher, len(layers))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = untrained(config, teacher.hf.config._attn_implementation)
    with torch.no_grad():
        if same:
            _copy_names(teacher, student, layers, settings)
        else:
            _copy_parts(teacher, student, layers, settings)
    method = settings.shrink
    if method is None and shape != dimensions_of(student):
        method = "projection" if can_fit(student) else "activation"
    if method is not None:
        student = narrow(teacher, layers, student, shape, method, sample, seed, settings.copy_head)
    return student


def _shape(settings: StudentSettings, teacher: Encoder) -> Dimensions:
    """The requested size of the student. Raises KdError if the teacher cannot give it."""
    asked = PRESETS[settings.shape][1] if settings.shape is not None else None
    if asked is not None:
        return narrowed(teacher, asked.width, asked.heads, asked.inner)
    return narrowed(teacher, settings.width, settings.heads, settings.inner)


def _same_config(teacher: Encoder, layers: tuple[int, ...]) -> PreTrainedConfig:
    """The teacher's configuration with these of its layers. KdError where its first layer, unlike the others, is not among them."""
    if teacher.family.first_layer_special and layers[0] != 0:
        raise KdError(
            f"student.layers: expected layer 0 among the layers of {teacher.family.name}, whose first layer has no attention norm, "
            f"got {list(layers)}; use every_other, first, spread, or a list that starts with 0"
        )
    config = copy.deepcopy(teacher.hf.config)
    config.dtype = torch.float32
    if teacher.family.masks == "by_layer_type":
        config.layer_types = [config.layer_types[layer] for layer in layers]
    setattr(config, teacher.family.config.layers, len(layers))
    return config


def _distilbert_config(teacher: Encoder, layers: int) -> PreTrainedConfig:
    """DistilBERT in the teacher's sizes. KdError for what its code fixes and the teacher has otherwise."""
    names, config = teacher.family.config, teacher.hf.config
    if not teacher.family.like_bert:
        raise KdError(f"student.architecture: expected a teacher whose layers distilbert can hold, got {teacher.family.name}; use same")
    eps = teacher.family.norm_eps or getattr(config, names.norm_eps)
    fixed = FAMILIES["distilbert"].norm_eps
    if eps != fixed:
        raise KdError(
            f"student.architecture: expected LayerNorm epsilon {fixed:g} for distilbert, which fixes it, "
            f"got a teacher with {eps:g}; use same"
        )
    activation = getattr(config, names.activation)
    if teacher.family.head_activation not in (None, activation):
        raise KdError(
            f"student.architecture: expected one activation in layers and head for distilbert, got a teacher with "
            f"{activation} and {teacher.family.head_activation}; use same"
        )
    return DistilBertConfig(
        vocab_size=teacher.vocabulary,
        max_position_embeddings=teacher.max_positions,
        sinusoidal_pos_embds=False,
        n_layers=layers,
        n_heads=teacher.heads,
        dim=teacher.width,
        hidden_dim=getattr(config, names.inner),
        activation=activation,
        dropout=getattr(config, names.dropout),
        attention_dropout=getattr(config, names.attention_dropout),
        initializer_range=config.initializer_range,
        pad_token_id=config.pad_token_id,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        tie_word_embeddings=teacher.tied,
    )


def _copy_names(teacher: Encoder, student: Encoder, layers: tuple[int, ...], settings: StudentSettings) -> None:
    """Every weight by its name, layers renumbered. All weights of a layer are copied, for every family.

    Of layers that are passes through the same weights, only the number matters.
    """
    family, source = teacher.family, teacher.hf.state_dict()
    head = (f"{family.head_dense}.", f"{family.head_norm}.")
    for name, weight in student.hf.state_dict().items():
        inside = name.startswith(f"{family.layers}.")
        wanted = settings.copy_layers if inside else settings.copy_head if name.startswith(head) else settings.copy_embeddings
        if not wanted:
            continue
        if inside and not family.shared_layers:
            number, rest = name.removeprefix(f"{family.layers}.").split(".", 1)
            name = f"{family.layers}.{layers[int(number)]}.{rest}"
        weight.copy_(source[name])


def _copy_parts(teacher: Encoder, student: Encoder, layers: tuple[int, ...], settings: StudentSettings) -> None:
    """Part by part across architectures; the position table loses its offset rows, and gains token type 0."""
    ours, theirs = student.family, teacher.family
    pairs = []
    if settings.copy_embeddings:
        pairs += [(ours.word_embeddings, theirs.word_embeddings), (ours.embedding_norm, theirs.embedding_norm)]
        pairs += [(ours.decoder, theirs.decoder)]
    if settings.copy_head:
        pairs += [(ours.head_dense, theirs.head_dense), (ours.head_norm, theirs.head_norm)]
    for target, source in pairs:
        _copy(student.part(target), teacher.part(source))
    for position, layer in enumerate(layers if settings.copy_layers else ()):
        for name in LAYER_PARTS:
            _copy(student.layer_part(position, name), teacher.layer_part(layer, name))
    if not settings.copy_embeddings:
        return
    assert theirs.position_embeddings is not None, theirs.name  # like_bert
    assert ours.position_embeddings is not None, ours.name
    positions = teacher.weight(theirs.position_embeddings)[teacher.position_offset :].float()
    if settings.fold_token_type and theirs.token_type_embeddings is not None:
        positions = positions + teacher.weight(theirs.token_type_embeddings)[0].float()
    student.weight(ours.position_embeddings).copy_(positions)


def _copy(target: nn.Module, source: nn.Module) -> None:
    target.load_state_dict(source.state_dict())


def set_dropout(student: Encoder, rate: float) -> None:
    """Use this dropout for hidden states and attention alike."""
    names = student.family.config
    for name in (names.dropout, names.attention_dropout, *names.more_dropouts):
        setattr(student.hf.config, name, rate)
    for module in student.hf.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate
        elif isinstance(getattr(module, "attention_dropout", None), float):  # ModernBERT keeps the number, and no module where it is 0
            module.attention_dropout = rate
            module.out_drop = nn.Dropout(rate)


def _set_trainable(student: Encoder, settings: StudentSettings) -> None:
    family = student.family
    if settings.trainable == "head":
        student.requires_grad_(False)
        for path in (family.head_dense, family.head_norm):
            student.part(path).requires_grad_(True)
        student.decoder_bias.requires_grad_(True)
        student.decoder_weight.requires_grad_(not student.tied)
    if settings.freeze_positions:
        if family.position_embeddings is None:
            raise KdError(f"student.freeze_positions: expected a table of positions, got none in {family.name}; leave it out")
        student.part(family.position_embeddings).requires_grad_(False)
