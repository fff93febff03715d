"""A model of a smaller vocabulary: the same encoder, with some rows of its embeddings and decoder."""

import copy
from collections.abc import Sequence

import torch

from kd.errors import KdError
from kd.models.encoder import Encoder
from kd.models.loading import untrained

SPECIAL_IDS = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id", "mask_token_id", "unk_token_id")


def with_rows(encoder: Encoder, kept: Sequence[int]) -> Encoder:
    """The encoder of these ids alone, fp32, in eval mode: its logits are the encoder's own at them, for text of them.

    kept [V']: the old id of each new one, ascending. Raises KdError where an id is not the model's, or where positions start from a
    padding id that would change.
    """
    config, rows = copy.deepcopy(encoder.hf.config), torch.tensor(list(kept))
    if len(rows) == 0 or int(rows.min()) < 0 or int(rows.max()) >= encoder.vocabulary:
        raise KdError(
            f"vocabulary: expected ids from 0 to {encoder.vocabulary - 1}, the model's, got others; use the model's own tokenizer"
        )
    new_id = {int(old): new for new, old in enumerate(rows)}
    for name in SPECIAL_IDS:
        old = getattr(config, name, None)
        if isinstance(old, int):
            setattr(config, name, new_id.get(old))
    if encoder.family.position_offset is None and config.pad_token_id != encoder.hf.config.pad_token_id:
        raise KdError(
            f"vocabulary: expected the padding id {encoder.hf.config.pad_token_id} to stay, from which {encoder.family.name} counts "
            f"positions, got {config.pad_token_id}; keep the ids below it"
        )
    config.vocab_size = len(rows)
    config.dtype = torch.float32
    smaller = untrained(config, encoder.hf.config._attn_implementation)
    source = encoder.hf.state_dict()
    with torch.no_grad():
        for name, weight in smaller.hf.state_dict().items():
            whole = source[name]
            weight.copy_(whole if whole.shape == weight.shape else whole[rows.to(whole.device)])
    smaller.hf.eval()
    return smaller.eval()
