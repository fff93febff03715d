"""The norm of gradients against float64."""

import pytest
import torch

from kd.training.gradient_norm import BLOCK, gradient_norm


def test_a_large_gradient_has_the_norm_of_float64():
    drawn = torch.Generator().manual_seed(0)
    gradients = [torch.randn(shape, generator=drawn) for shape in ((30522, 256), (256, 256), (7,), (BLOCK,), (0,), ())]
    exact = sum(gradient.double().square().sum() for gradient in gradients).sqrt()
    assert float(gradient_norm(gradients)) == pytest.approx(float(exact), rel=1e-7)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, BLOCK, -1])
def test_what_is_not_finite_shows(value: float, place: int):
    gradient = torch.ones(2 * BLOCK + 3)
    gradient[place] = value
    assert not torch.isfinite(gradient_norm([torch.ones(3), gradient]))


def test_no_gradients():
    assert float(gradient_norm([])) == 0
