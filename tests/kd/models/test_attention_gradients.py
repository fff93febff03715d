"""Gradients of every parameter of every family: a packed batch with any attention against transformers' model on each document alone."""

import pytest
import torch
from model_names import FIRST, OTHERS

from kd.batch import IGNORED, Batch
from kd.models.encoder import Encoder, kernel_for
from kd.student.student import set_dropout

POSITIONS = 19
DOCUMENTS = ([POSITIONS], [1] * 5, [], [1, 16, 2])
"""Lengths in each row: one document of the whole window, documents of one token and padding, padding alone, a full window of several."""
WITHOUT_RECOMPUTING = ("mpnet", "albert")


def batch_of() -> Batch:
    draw = torch.Generator().manual_seed(4)
    ids, positions, segments = (torch.zeros(len(DOCUMENTS), POSITIONS, dtype=torch.int64) for _ in range(3))
    for row, lengths in enumerate(DOCUMENTS):
        start = 0
        for number, length in enumerate(lengths, start=1):
            inside = slice(start, start + length)
            ids[row, inside] = torch.randint(5, 120, (length,), generator=draw)
            positions[row, inside], segments[row, inside] = torch.arange(length), number
            start += length
    return Batch(ids, torch.full_like(ids, IGNORED), positions, segments, torch.arange(len(DOCUMENTS)))


def gradients(model) -> dict[str, torch.Tensor]:
    """Of each parameter, 0 where there is none; they are gone afterwards."""
    results = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return results


@pytest.mark.parametrize("family", [*FIRST, *OTHERS])
def test_every_attention_gives_the_gradients_of_each_document_alone(make_model, family):
    model, batch = make_model(family, layers=2).double(), batch_of()
    weights = torch.randn(*batch.input_ids.shape, 120, generator=torch.Generator().manual_seed(6)).double()
    real = batch.segments > 0
    for row, number in {(row, int(batch.segments[row, at])) for row, at in real.nonzero().tolist()}:
        inside = batch.segments[row] == number
        ids = batch.input_ids[row : row + 1, inside]
        (model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0] * weights[row, inside]).sum().backward()
    expected = gradients(model)
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    encoder = Encoder(model)
    set_dropout(encoder, 0.0)
    recomputing = [False] if family in WITHOUT_RECOMPUTING else [False, True]
    for recompute in recomputing:
        if recompute:
            encoder.train()
            encoder.checkpoint_activations(use_reentrant=False)
        for kernel in dict.fromkeys(kernel_for(encoder.family, name) for name in ("sdpa", "eager", "documents")):
            encoder.use_attention(kernel)
            (encoder.logits(encoder(batch).last_hidden) * weights)[real].sum().backward()
            tolerance = 1e-4 if (encoder.family.name, kernel) == ("modernbert", "eager") else 1e-10  # its softmax is fp32 there
            for name, gradient in gradients(model).items():
                error = float((gradient - expected[name]).abs().max()) / largest
                assert error <= tolerance, (kernel, recompute, name)
