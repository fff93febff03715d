"""A model's outputs as transformers gives them."""

from torch import Tensor

from kd.models.encoder import Encoder


def whole(model: Encoder, ids: Tensor, mask: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """(logits [B, S, V], last hidden states [B, S, D])."""
    out = model.hf(input_ids=ids, attention_mask=mask, position_ids=positions, output_hidden_states=True)
    return out.logits, out.hidden_states[-1]
