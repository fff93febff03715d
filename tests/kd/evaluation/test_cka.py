"""Linear CKA against its definition by Gram matrices, and what it must be blind to."""

import pytest
import torch

from kd.batch import Batch
from kd.errors import KdError
from kd.evaluation.cka import layer_similarity, linear_cka
from kd.models.encoder import Encoder
from kd.terms.layer_map import by_similarity


def test_linear_cka_is_hsic_of_the_gram_matrices() -> None:
    """Kornblith et al. 2019, equations 1 and 3: tr(K H L H) / sqrt(tr(K H K H) tr(L H L H)), H the centring matrix."""
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(30, width, generator=generator, dtype=torch.float64) + 3 for width in (5, 8))
    y = y + x @ torch.randn(5, 8, generator=generator, dtype=torch.float64)
    k, m, h = x @ x.T, y @ y.T, torch.eye(30, dtype=torch.float64) - 1 / 30
    expected = torch.trace(k @ h @ m @ h) / (torch.trace(k @ h @ k @ h) * torch.trace(m @ h @ m @ h)).sqrt()
    assert linear_cka(x, y) == pytest.approx(float(expected), rel=1e-9)
    assert linear_cka(x, x * 7 - 2) == pytest.approx(1.0)
    assert linear_cka(x, x @ torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64))[0]) == pytest.approx(1.0)
    assert linear_cka(x, torch.ones(30, 2)) == 0.0


def test_layers_that_were_copied_are_found_again(make_model, tiny_batch: Batch) -> None:
    """A student made of the teacher's first two layers is most like exactly those, whatever padding the rows hold."""
    teacher, student = make_model("bert", layers=4), make_model("bert", layers=2, seed=9)
    student.load_state_dict(teacher.state_dict(), strict=False)
    table = layer_similarity(Encoder(student), Encoder(teacher), [tiny_batch], tokens=1000)
    assert table.shape == (2, 4)
    assert table[0, 0] == pytest.approx(1.0)
    assert table[1, 1] == pytest.approx(1.0)
    assert [pair.teacher for pair in by_similarity(table)] == [[0], [1]]
    fewer = layer_similarity(Encoder(student), Encoder(teacher), [tiny_batch, tiny_batch], tokens=10)
    assert not torch.equal(fewer, table)
    with pytest.raises(KdError, match="at least 2 tokens"):
        layer_similarity(Encoder(student), Encoder(teacher), [], tokens=10)
