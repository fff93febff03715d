"""Attention by document equals masked attention in values and gradients, and keeps documents apart."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from kd.kernels import dropout, flash, fp32_products
from kd.kernels.dropout import Dropout, Key, set_key
from kd.models.attention import document_attention, document_layout
from kd.models.attention.document_attention import DOCUMENTS, attend, dropout_mask
from kd.models.attention.document_layout import layout_of
from kd.models.encoder import Encoder
from kd.student.student import set_dropout

SEGMENTS = {
    "one document": [[1] * 40] * 3,
    "several documents and padding": [[1] * 7 + [2] * 17 + [3] * 16, [1] * 16 + [2] * 15 + [0] * 9, [1] * 40],
    "documents of one token": [[*range(1, 41)], [1, *[2] * 39], [*[1] * 39, 2]],
    "a row of padding": [[0] * 40, [1] * 3 + [0] * 37, [1] * 20 + [2] * 20],
}


def masked(query, key, value, segments, scaling):
    allowed = segments[:, None, :, None] == segments[:, None, None, :]
    return F.scaled_dot_product_attention(query, key, value, allowed, scale=scaling).transpose(1, 2)


def states(segments, dtype, scale=1.0, requires_grad=True):
    rows, positions = segments.shape
    draw = torch.Generator().manual_seed(5)
    made = [torch.randn(rows, positions, 3, 8, generator=draw).mul(scale).to(dtype) for _ in range(3)]
    return [state.requires_grad_(requires_grad) for state in made]


def results(way, inputs, segments):
    """(outputs of real positions, gradients of the three inputs) in fp64."""
    output = way(*(state.transpose(1, 2) for state in inputs), segments, 8**-0.5)
    real = segments > 0
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(9)).to(output.dtype) * real[:, :, None, None]
    gradients = torch.autograd.grad((output * weights).sum(), inputs)
    return [output.detach()[real].double(), *(gradient.double() for gradient in gradients)]


def eager(query, key, value, segments, scaling):
    """Masked attention as plain products, which round in their own dtype."""
    allowed = segments[:, None, :, None] == segments[:, None, None, :]
    scores = (query @ key.mT * scaling).masked_fill(~allowed, float("-inf"))
    return (scores.softmax(-1) @ value).transpose(1, 2)


@pytest.mark.parametrize("name", SEGMENTS)
def test_large_scores_in_bf16_round_no_more_than_plain_products_do(name):
    segments = torch.tensor(SEGMENTS[name])
    inputs = states(segments, torch.bfloat16, 10.0)
    reference = results(masked, [state.detach().double().requires_grad_() for state in inputs], segments)
    ours, plain = results(attend, inputs, segments), results(eager, inputs, segments)
    for one, other, exact in zip(ours, plain, reference, strict=True):
        assert one.isfinite().all()
        assert (one - exact).norm() <= 1.1 * (other - exact).norm() + 1e-3 * exact.norm()


@pytest.mark.parametrize("name", SEGMENTS)
@pytest.mark.parametrize(
    ("dtype", "scale", "tolerance"),
    [
        (torch.float64, 1.0, 1e-12),
        (torch.float64, 10.0, 1e-12),
        (torch.float32, 1.0, 1e-5),
        (torch.float32, 10.0, 1e-5),
        (torch.bfloat16, 1.0, 0.04),
    ],
)
def test_values_and_gradients_are_those_of_masked_attention(name, dtype, scale, tolerance):
    segments = torch.tensor(SEGMENTS[name])
    inputs = states(segments, dtype, scale)
    reference = [state.detach().double().requires_grad_() for state in inputs]
    for one, other in zip(results(attend, inputs, segments), results(masked, reference, segments), strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(one, other, atol=tolerance * max(1.0, float(other.abs().max())), rtol=tolerance)


class Operations(TorchDispatchMode):
    """The names of all operations meanwhile."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        self.names.add(str(function))
        return function(*arguments, **(named or {}))


@pytest.mark.parametrize("onednn", [False, True])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_long_documents_and_a_pass_without_gradients_in_fp32_take_the_fused_kernel_of_mkl_and_give_the_same(
    monkeypatch, requires_grad, onednn
):
    monkeypatch.setattr(fp32_products, "chosen", lambda: onednn)
    segments = torch.tensor([[1] * 300 + [2] * 20, [1] * 320, [1] * 5 + [0] * 315])
    inputs = states(segments, torch.float32, requires_grad=requires_grad)
    split = [state.transpose(1, 2) for state in inputs]
    with Operations() as operations:
        output = attend(*split, segments, 0.3)
    assert any("scaled_dot_product" in name for name in operations.names) is not onednn
    expected = masked(*split, segments, 0.3)
    real = segments > 0
    torch.testing.assert_close(output[real], expected[real], atol=1e-5, rtol=1e-5)
    assert not output[~real].any()
    if requires_grad:
        ours, theirs = (torch.autograd.grad(way[real].square().sum(), inputs) for way in (output, expected))
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", SEGMENTS)
def test_documents_that_lie_one_after_the_other_give_the_same(name, monkeypatch):
    """The packing around flash attention; its kernel needs a GPU, so one product after the other stands in for it."""

    def attend_each(query, key, value, starts, longest, scaling):
        assert starts.dtype == torch.int32
        assert starts.diff().max() == longest
        each = [(state.tensor_split(starts[1:-1].long()) for state in (query, key, value))]
        outputs = [F.scaled_dot_product_attention(*(x.transpose(0, 1) for x in one), scale=scaling) for one in zip(*each[0], strict=True)]
        return torch.cat([output.transpose(0, 1) for output in outputs])

    segments = torch.tensor(SEGMENTS[name])
    wanted = results(masked, states(segments, torch.float64), segments)
    monkeypatch.setattr(flash, "takes", lambda query: True)
    monkeypatch.setattr(flash, "attend", attend_each)
    for got, one in zip(results(attend, states(segments, torch.float64), segments), wanted, strict=True):
        torch.testing.assert_close(got, one)


def test_flash_attention_of_torch_takes_what_it_is_given():
    segments = torch.tensor(SEGMENTS["several documents and padding"])
    there = segments.to("meta")
    document_layout.remember(there, segments)
    inputs = [state.detach().to("meta").requires_grad_() for state in states(segments, torch.bfloat16)]
    assert flash.takes(inputs[0])
    output = attend(*(state.transpose(1, 2) for state in inputs), there, 8**-0.5)
    assert output.shape == inputs[0].shape
    assert [x.shape for x in torch.autograd.grad(output.sum(), inputs)] == [x.shape for x in inputs]
    assert not flash.takes(torch.zeros(1, 3, 40, 8, dtype=torch.bfloat16))  # a CPU
    assert not flash.takes(inputs[0].float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_position_influences_another_document_or_comes_from_padding(dtype):
    segments = torch.tensor([[1] * 9 + [2] * 13 + [3] * 6 + [0] * 12])
    inputs = states(segments, dtype)
    output = attend(*(state.transpose(1, 2) for state in inputs), segments, 0.3)
    for number in (1, 2, 3):
        gradients = torch.autograd.grad(output[segments == number].sum(), inputs, retain_graph=True)
        for gradient in gradients:
            assert not gradient[segments != number].any()
    assert torch.autograd.grad(output[segments == 2].square().sum(), inputs)[2][segments == 2].any()


@pytest.mark.parametrize("keyed", [False, True])
def test_dropout_keeps_the_mean_and_its_gradient_belongs_to_the_same_mask(keyed):
    torch.manual_seed(3)
    mask = dropout_mask((300, 301), 0.1, torch.device("cpu"))
    assert mask.unique().tolist() == [0, 1]
    assert abs(float(mask.double().mean()) - 0.9) < 0.005
    segments = torch.tensor(SEGMENTS["several documents and padding"])
    inputs = states(segments, torch.float64)

    def dropped(*tensors):
        torch.manual_seed(11)
        return attend(*(state.transpose(1, 2) for state in tensors), segments, 0.3, 0.4, 2 if keyed else None)

    assert not torch.equal(dropped(*inputs), attend(*(state.transpose(1, 2) for state in inputs), segments, 0.3))
    set_key(Key(1, 1, (0, 1, 2)))
    try:
        assert torch.autograd.gradcheck(dropped, inputs, fast_mode=True)
    finally:
        set_key(None)


def test_dropout_of_a_document_is_the_same_in_every_micro_batch_and_beside_other_documents_of_its_row():
    segments = torch.tensor([[1] * 7 + [2] * 17 + [3] * 16, [1] * 16 + [2] * 15 + [0] * 9])
    inputs = [state.transpose(1, 2) for state in states(segments, torch.float64, requires_grad=False)]
    try:
        set_key(Key(1, 1, (6, 8)))
        whole = attend(*inputs, segments, 0.3, 0.4, 2)
        again = attend(*inputs, segments, 0.3, 0.4, 2)
        other_place = attend(*inputs, segments, 0.3, 0.4, 3)
        set_key(Key(1, 1, (8,)))
        alone = attend(*(state[1:] for state in inputs), segments[1:], 0.3, 0.4, 2)
        wider = [torch.cat([state, state[:, :, :8]], 2)[1:] for state in inputs]
        padded = attend(*wider, torch.cat([segments, segments[:, :8] * 0], 1)[1:], 0.3, 0.4, 2)
    finally:
        set_key(None)
    assert torch.equal(whole, again)
    assert not torch.equal(whole, other_place)
    torch.testing.assert_close(alone, whole[1:])
    torch.testing.assert_close(padded[:, :40], whole[1:])


@pytest.mark.parametrize("kernel", ["sdpa", "eager", DOCUMENTS])
@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta", "electra", "mpnet", "deberta-v2", "modernbert"])
def test_no_place_of_a_family_draws_the_same_mask_twice(make_model, tiny_batch, name, kernel, monkeypatch):
    """Each (place, row, part) is drawn once in a forward pass, so no two masks are equal."""
    drawn = []
    plain = dropout.draw

    def noted(into, rate, key, place, row, part=0):
        drawn.append((place, row, part))
        plain(into, rate, key, place, row, part)

    monkeypatch.setattr(dropout, "draw", noted)
    monkeypatch.setattr(document_attention, "draw", noted)
    encoder = Encoder(make_model(name)).train()
    set_dropout(encoder, 0.1)
    encoder.use_attention(kernel)
    encoder.key_dropout()
    set_key(Key(1, 1, tuple(range(len(tiny_batch.input_ids)))))
    try:
        encoder(tiny_batch)
    finally:
        set_key(None)
    assert drawn
    assert len(set(drawn)) == len(drawn)


def test_a_copy_of_a_student_has_its_attention_and_changes_it_alone(make_model):
    encoder = Encoder(make_model("bert"))
    encoder.use_attention(DOCUMENTS)
    copy = encoder.blank(torch.float32)
    assert copy.attention == DOCUMENTS
    copy.use_attention("eager")
    assert (encoder.attention, copy.attention) == (DOCUMENTS, "eager")


def test_a_copy_of_a_student_drops_as_it_does(make_model):
    encoder = Encoder(make_model("bert"))
    assert not any(isinstance(module, Dropout) for module in encoder.blank(torch.float32).modules())
    encoder.key_dropout()
    places = [module.place for module in encoder.blank(torch.float32).modules() if isinstance(module, Dropout)]
    assert places == [module.place for module in encoder.modules() if isinstance(module, Dropout)] != []


def test_layouts_group_documents_of_like_length():
    layout = layout_of(torch.tensor(SEGMENTS["several documents and padding"]))
    assert layout.documents == ((0, 0, 7), (0, 7, 24), (0, 24, 40), (1, 0, 16), (1, 16, 31), (2, 0, 40))
    assert [(group.length, len(group.gather) // group.length) for group in layout.groups] == [(16, 4), (32, 1), (40, 1)]
    assert not layout_of(torch.zeros(2, 5, dtype=torch.int64)).groups


class Shapes(TorchDispatchMode):
    """The shapes of all tensors that operations return meanwhile."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        result = function(*arguments, **(named or {}))
        given = result if isinstance(result, tuple | list) else [result]
        self.seen |= {tuple(one.shape) for one in given if isinstance(one, torch.Tensor)}
        return result


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta", "electra", "albert"])
def test_a_model_makes_no_mask_over_pairs_of_positions(make_model, tiny_batch, name):
    encoder = Encoder(make_model(name)).train()
    rows, positions = tiny_batch.segments.shape
    masks = {(rows, 1, positions, positions), (rows, positions, positions)}
    shapes = {}
    for kernel in ("sdpa", DOCUMENTS):
        encoder.use_attention(kernel)
        with Shapes() as shapes[kernel]:
            encoder(tiny_batch).last_hidden.sum().backward()
    assert shapes["sdpa"].seen & masks
    assert not shapes[DOCUMENTS].seen & masks


@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputed_activations_give_the_same_gradients(make_model, tiny_batch, reentrant):
    gradients = []
    for recompute in (False, True):
        encoder = Encoder(make_model("bert")).train()
        encoder.use_attention(DOCUMENTS)
        if recompute:
            encoder.checkpoint_activations(use_reentrant=reentrant)
        torch.manual_seed(2)
        encoder(tiny_batch).last_hidden[tiny_batch.real].square().sum().backward()
        gradients.append(encoder.layer_part(0, "value").weight.grad)
    torch.testing.assert_close(*gradients)


def test_segments_on_a_device_get_the_layout_of_the_segments_on_the_host(tiny_batch):
    meta = tiny_batch.to(torch.device("meta"))
    with pytest.raises(NotImplementedError):  # it would have to be read from the device
        layout_of(meta.segments)
    document_layout.remember(meta.segments, tiny_batch.segments)
    ours, theirs = layout_of(meta.segments[:, None, None][:, 0, 0]), layout_of(tiny_batch.segments)
    assert ours.documents == theirs.documents
    assert [group.gather.shape for group in ours.groups] == [group.gather.shape for group in theirs.groups]
    assert {group.gather.device.type for group in ours.groups} == {"meta"}
    other = tiny_batch.to(torch.device("meta"))
    key = next(iter(document_layout._REMEMBERED))
    del meta
    document_layout.remember(other.segments, tiny_batch.segments)
    assert key not in document_layout._REMEMBERED  # the first segments are gone
    assert len(document_layout._REMEMBERED) == 1
