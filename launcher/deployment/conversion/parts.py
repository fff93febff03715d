"""The parts of a model that `--keep-fp32` names: embeddings, head, layers, and the attention and feed-forward half of a layer."""

from kd.models.encoder import Encoder
from launcher.errors import LaunchError

EMBEDDINGS, HEAD = "embeddings", "head"
HALVES = ("attention", "feed_forward")


def parts_of(encoder: Encoder) -> dict[str, frozenset[str]]:
    """Part -> names of its weights: embeddings, then `layers.N.attention` and `layers.N.feed_forward` by layer, then head.

    All layers of a model that shares them are layers.0.
    """
    names = [name for name, _ in encoder.hf.named_parameters()]
    layers, base = f"{encoder.family.layers}.", f"{encoder.family.base}."
    inside = [name for name in names if name.startswith(layers)]
    table = encoder.weight(encoder.family.word_embeddings)  # tied weights may have the name that they have in the head
    shared = {name for name, weight in encoder.hf.named_parameters() if weight is table}
    head = frozenset(name for name in names if not name.startswith(base) or name.startswith(f"{base}pooler.")) - shared
    parts = {EMBEDDINGS: frozenset(names) - frozenset(inside) - head}
    for number in range(1 + max(int(name.removeprefix(layers).split(".")[0]) for name in inside)):
        paths = encoder.family.layer
        of_layer = [name for name in inside if name.startswith(f"{layers}{number}.")]
        feed_forward = tuple(f"{layers}{number}.{path}." for path in (paths.feed_forward_up, paths.feed_forward_down))
        halves = {"feed_forward": frozenset(name for name in of_layer if name.startswith(feed_forward))}
        halves["attention"] = frozenset(of_layer) - halves["feed_forward"]
        parts |= {f"layers.{number}.{half}": halves[half] for half in HALVES}
    parts[HEAD] = head
    return {part: weights for part, weights in parts.items() if weights}


def weights_of(encoder: Encoder, part: str) -> frozenset[str]:
    """The weights of a part, of `layers.N`, or of any beginning of weights' names. Raises LaunchError where there is none."""
    parts = parts_of(encoder)
    if part in parts:
        return parts[part]
    beginning = f"{encoder.family.layers}.{part.removeprefix('layers.')}" if part.startswith("layers.") else part
    names = (name for name, _ in encoder.hf.named_parameters())
    weights = frozenset(name for name in names if name == beginning or name.startswith(f"{beginning}."))
    if not weights:
        raise LaunchError(f"--keep-fp32 {part}: expected a part of the model, got none of that name; try layers.0 or embeddings")
    return weights
