"""Linear CKA against its definition by Gram matrices, and what it must be blind to."""

import itertools

import pytest
import torch

from kd.batch import Batch
from kd.errors import KdError
from kd.evaluation.cka import MinibatchCka, layer_similarity, linear_cka
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


def test_minibatch_cka_is_the_unbiased_hsic_by_its_sums() -> None:
    """Song et al. 2012, equation 4: sums over pairs, quadruples and triples of different tokens, here written out for few tokens."""
    generator = torch.Generator().manual_seed(2)
    batches = [[torch.randn(6, width, generator=generator, dtype=torch.float64) + 2 for width in (3, 4, 5)] for _ in range(2)]

    def hsic(x: torch.Tensor, y: torch.Tensor) -> float:
        k, m, n = (x @ x.T).tolist(), (y @ y.T).tolist(), len(x)
        pairs = sum(k[i][j] * m[i][j] for i, j in itertools.permutations(range(n), 2)) / (n * (n - 1))
        fours = sum(k[i][j] * m[q][r] for i, j, q, r in itertools.permutations(range(n), 4)) / (n * (n - 1) * (n - 2) * (n - 3))
        threes = sum(k[i][j] * m[i][q] for i, j, q in itertools.permutations(range(n), 3)) / (n * (n - 1) * (n - 2))
        return pairs + fours - 2 * threes

    cka = MinibatchCka()
    for first, second, third in batches:
        cka.add([first, second], [third])
    for layer in range(2):
        cross, own, other = (sum(hsic(batch[a], batch[b]) for batch in batches) for a, b in ((layer, 2), (layer, layer), (2, 2)))
        assert float(cka.values[layer, 0]) == pytest.approx(cross / (own * other) ** 0.5, rel=1e-9)


def test_minibatch_cka_is_one_for_turned_layers_and_about_zero_for_unrelated_ones_with_few_tokens() -> None:
    generator = torch.Generator().manual_seed(3)
    x, other = (torch.randn(64, 48, generator=generator) for _ in range(2))
    turned = 7 * x @ torch.linalg.qr(torch.randn(48, 48, generator=generator))[0] - 2
    cka = MinibatchCka()
    cka.add([x], [turned, other, torch.ones(64, 8)])
    assert float(cka.values[0, 0]) == pytest.approx(1.0, abs=1e-5)  # the product is in fp32
    assert abs(float(cka.values[0, 1])) < 0.1
    assert linear_cka(x, other) > 0.3, "the biased one looks similar"
    assert float(cka.values[0, 2]) == pytest.approx(0.0, abs=1e-6)
