"""The meaning of the axes of every weight of an encoder, which a narrower copy needs.

| letter | axis | | letter | axis |
| --- | --- | --- | --- | --- |
| D | residual stream | | Q, K | query and key rows, head by head |
| E | embeddings, where narrower than the stream (else D) | | O | value rows and what reads them |
| V, P, T | vocabulary, positions, token types | | F | query, key and value rows in one matrix |
| H | heads | | I, J | inner neurons; the two halves of a gated layer |
| R | anything that stays | | | |
"""

from torch import nn

from kd.errors import KdError
from kd.models.encoder import Encoder
from kd.models.families import LAYER_PARTS
from kd.student.presets import dimensions_of

PARTS = {
    "query": "QD",
    "key": "KD",
    "value": "OD",
    "attention_output": "DO",
    "attention_norm": "D",
    "feed_forward_up": "ID",
    "feed_forward_down": "DI",
    "feed_forward_norm": "D",
}


def axes(encoder: Encoder) -> dict[str, tuple[str, int | None]]:
    """Parameter name -> (a letter for each of its axes, number of its layer or None). KdError for a weight that nothing here knows."""
    family, known = encoder.family, dict[int, tuple[str, int | None]]()
    embedding = "E" if family.embedding_projection is not None else "D"

    def note(module: nn.Module, letters: str, layer: int | None = None) -> None:
        for name, weight in module.named_parameters(recurse=False):
            known[id(weight)] = (letters if name == "weight" else letters[0], layer)

    tables = [(family.word_embeddings, "V"), (family.position_embeddings, "P"), (family.token_type_embeddings, "T"), (family.decoder, "V")]
    for path, rows in tables:
        if path is not None:
            note(encoder.part(path), rows + embedding)
    note(encoder.part(family.embedding_norm), embedding)
    note(encoder.part(family.head_dense), embedding + "D")
    note(encoder.part(family.head_norm), embedding)
    if family.embedding_projection is not None:
        note(encoder.part(family.embedding_projection), "DE")
    known[id(encoder.decoder_bias)] = ("V", None)
    for number, layer in enumerate(encoder.part(family.layers).children()):
        for part in LAYER_PARTS:
            path = getattr(family.layer, part)
            if path is not None:
                note(layer.get_submodule(path), _gated(encoder, layer.get_submodule(path), PARTS[part]), number)
        if family.layer.fused_qkv is not None:
            note(layer.get_submodule(family.layer.fused_qkv), "FD", number)
    return {name: known.get(id(weight)) or _extra(encoder, name) for name, weight in encoder.hf.named_parameters()}


def _gated(encoder: Encoder, module: nn.Module, letters: str) -> str:
    """ID becomes JD where one matrix holds a layer and its gate."""
    weight = getattr(module, "weight", None)
    twice = letters == "ID" and weight is not None and weight.shape[0] == 2 * dimensions_of(encoder).inner
    return "JD" if twice else letters


def _extra(encoder: Encoder, name: str) -> tuple[str, int | None]:
    """The axes of a weight that the family's row names apart."""
    family = encoder.family
    if name in family.extra:
        return family.extra[name], None
    if name.startswith(f"{family.layers}."):
        number, rest = name.removeprefix(f"{family.layers}.").split(".", 1)
        if rest in family.extra:
            return family.extra[rest], int(number)
    raise KdError(f"student.width: expected a model whose every weight is known, got {name} in {family.name}; keep the teacher's width")
