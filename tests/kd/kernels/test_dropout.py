"""Masks of dropout are independent, have the rate that was asked for, and depend on seed, update, slot and place alone."""

from itertools import combinations

import pytest
import torch
from torch import nn

from kd.kernels import dropout
from kd.kernels.dropout import Dropout, Key, draw, replace_dropout, scale_of, set_key

ROWS, WIDTH = 4, 40_000


@pytest.fixture(autouse=True)
def no_key():
    set_key(None)
    yield
    set_key(None)


def mask(key: Key, place: int = 0, row: int = 0, part: int = 0, rate: float = 0.1, size: int = WIDTH) -> torch.Tensor:
    kept = torch.empty(size, dtype=torch.int8)
    draw(kept, rate, key, place, row, part)
    return kept


def test_the_numbers_are_those_of_philox():
    """The known answer of Random123 for philox4x64-10, key and counter 0. numpy adds 1 to the counter before it draws."""
    before = (2**64 - 1,) * 4
    drawn = dropout.Philox(key=(0, 0), counter=before).random_raw(4)
    assert [f"{number:016x}" for number in drawn] == ["16554d9eca36314c", "db20fe9d672d0fdc", "d7e772cee186176b", "7e68b68aec7ba23b"]


@pytest.mark.parametrize("rate", [1e-3, 0.1, 0.5, 0.9, 0.9999999])
def test_the_share_of_kept_elements_is_exact_and_the_mean_stays(rate):
    kept = mask(Key(3, 1, (0,)), rate=rate, size=1_000_000).double()
    assert set(kept.unique().tolist()) <= {0.0, 1.0}
    chance = 1 / scale_of(rate)
    assert chance == pytest.approx(1 - rate, abs=2**-16)
    assert abs(float(kept.mean()) - chance) < 5 * (chance * (1 - chance) / len(kept)) ** 0.5


def test_masks_of_other_seeds_updates_slots_places_and_parts_are_independent():
    masks = [
        mask(Key(1, 1, (0, 1))),
        mask(Key(2, 1, (0, 1))),
        mask(Key(1, 2, (0, 1))),
        mask(Key(1, 1, (0, 1)), row=1),
        mask(Key(1, 1, (0, 1)), place=1),
        mask(Key(1, 1, (0, 1)), part=1),
        mask(Key(2**63 - 1, 1, (0, 1))),
    ]
    for one, other in combinations(masks, 2):
        both = torch.corrcoef(torch.stack([one.double(), other.double()]))[0, 1]
        assert abs(float(both)) < 5 / WIDTH**0.5
    neighbours = masks[0].double()
    assert abs(float(torch.corrcoef(torch.stack([neighbours[:-1], neighbours[1:]]))[0, 1])) < 5 / WIDTH**0.5


def test_a_row_has_the_same_mask_in_every_micro_batch():
    module = Dropout(0.3, place=5)
    states = torch.randn(ROWS, 6, 7)
    set_key(Key(1, 9, (3, 5, 7, 9)))
    whole = module(states)
    for slots, rows in (((3, 7), [0, 2]), ((9,), [3])):
        set_key(Key(1, 9, slots))
        assert torch.equal(module(states[rows]), whole[rows])
    set_key(Key(1, 10, (3, 5, 7, 9)))
    assert not torch.equal(module(states), whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_kept_elements_are_scaled_exactly_and_gradients_have_the_same_mask(dtype):
    set_key(Key(1, 1, tuple(range(ROWS))))
    module = Dropout(0.25, place=0)
    states = torch.randn(ROWS, 50, dtype=dtype, requires_grad=True)
    output = module(states)
    assert output.dtype == dtype
    kept = output != 0
    assert 0.6 < float(kept.double().mean()) < 0.9
    torch.testing.assert_close(output[kept], (states[kept].double() / 0.75).to(dtype), rtol=torch.finfo(dtype).eps, atol=0)
    (gradient,) = torch.autograd.grad(output.sum(), states)
    torch.testing.assert_close(gradient, (kept.double() / 0.75).to(dtype), rtol=torch.finfo(dtype).eps, atol=0)


def test_without_a_key_for_its_rows_it_is_torchs_dropout():
    states = torch.randn(ROWS, 50)
    for key in (None, Key(1, 1, (0, 1))):
        set_key(key)
        torch.manual_seed(4)
        ours = Dropout(0.1, place=0)(states)
        torch.manual_seed(4)
        assert torch.equal(ours, nn.Dropout(0.1)(states))


def test_nothing_is_dropped_at_rate_0_or_in_evaluation():
    set_key(Key(1, 1, tuple(range(ROWS))))
    states = torch.randn(ROWS, 50)
    assert torch.equal(Dropout(0.0, place=0)(states), states)
    assert torch.equal(Dropout(0.5, place=0).eval()(states), states)


def test_every_dropout_of_a_model_is_replaced_with_a_place_of_its_own():
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.1), nn.Sequential(nn.Dropout(0.2), nn.ReLU())).eval()
    replace_dropout(model)
    replace_dropout(model)
    made = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    assert [(type(one), one.p, one.place, one.training) for one in made] == [(Dropout, 0.1, 0, False), (Dropout, 0.2, 1, False)]
