"""Narrower students: nothing cut is nothing changed, what does no work goes first, and what is left makes up for what went."""

import pytest
import torch
from pydantic import ValidationError
from transformers import BertConfig, BertForMaskedLM

from kd.batch import IGNORED, Batch
from kd.errors import KdError
from kd.export.hugging_face import save_student
from kd.models.encoder import Encoder
from kd.models.loading import load_mlm
from kd.student.axes import axes
from kd.student.fit import Kept, can_fit, fit, regression
from kd.student.importance import by_activation, by_magnitude, head_dimensions, strongest
from kd.student.narrow import choose, narrow
from kd.student.presets import PRESETS, Dimensions, dimensions_of, narrowed
from kd.student.settings import StudentSettings
from kd.student.student import make_student

pytestmark = pytest.mark.slow

EVERY_FAMILY = (
    "bert",
    "distilbert",
    "roberta",
    "electra",
    "mpnet",
    "deberta-v2",
    "deberta of its own keys",
    "deberta with positions",
    "modernbert",
    "modernbert with biases",
    "albert",
)
FULL = Dimensions(32, 4, 64)


@pytest.fixture(scope="module")
def sample() -> list[Batch]:
    """4 batches of 8 rows of 24: some 700 positions, two documents a row and padding."""
    made = []
    for seed in range(4):
        ids = torch.randint(5, 120, (8, 24), generator=torch.Generator().manual_seed(seed))
        segments = torch.tensor([1] * 12 + [2] * 10 + [0] * 2).expand(8, 24).clone()
        positions = torch.cat([torch.arange(12), torch.arange(12)]).expand(8, 24).clone()
        made.append(Batch(ids, torch.full_like(ids, IGNORED), positions, segments, torch.arange(8)))
    return made


def student_of(teacher, sample=(), **settings):
    settings = {"layers": "first", "count": teacher.layers, "architecture": "same"} | settings
    return make_student(StudentSettings(**settings), teacher, 3, sample).eval()


def logits(encoder, batch):
    with torch.no_grad():
        return encoder.logits(encoder(batch).last_hidden)[batch.real]


def distance(one, other, batches):
    """Mean squared difference of logits."""
    return sum(float((logits(one, batch) - logits(other, batch)).square().mean()) for batch in batches) / len(batches)


@pytest.mark.parametrize("family", EVERY_FAMILY)
@pytest.mark.parametrize("method", ["magnitude", "activation"])
def test_selecting_the_full_width_gives_equal_logits(make_model, tiny_batch, sample, family, method):
    teacher = Encoder(make_model(family))
    student = student_of(teacher, sample, shrink=method)
    assert torch.equal(logits(student, tiny_batch), logits(teacher, tiny_batch))


@pytest.mark.parametrize("family", EVERY_FAMILY)
@pytest.mark.parametrize("method", ["magnitude", "activation"])
def test_every_family_becomes_narrower_and_is_read_again(make_model, tiny_batch, sample, tmp_path, family, method):
    teacher = Encoder(make_model(family))
    size = 8 if family.startswith("modernbert") else 6
    student = student_of(teacher, sample, count=2, layers="every_other", width=2 * size, heads=2, inner=20, shrink=method)
    assert dimensions_of(student) == Dimensions(2 * size, 2, 20)
    assert student.layers == 2
    save_student(student, tmp_path / "student", tokenizer_folder=None)
    assert torch.equal(logits(load_mlm(str(tmp_path / "student")), tiny_batch), logits(student, tiny_batch))


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_every_weight_has_as_many_letters_as_axes(make_model, family):
    teacher = Encoder(make_model(family))
    known = axes(teacher)
    sizes = {"D": 32, "V": 120, "Q": 32, "K": 32, "O": 32, "I": 64, "J": 128, "F": 96, "H": 4, "E": 16}
    for name, weight in teacher.hf.named_parameters():
        letters = known[name][0]
        assert len(letters) == weight.dim(), name
        assert all(sizes.get(letter, size) == size for letter, size in zip(letters, weight.shape, strict=True)), name


def test_neurons_and_heads_that_do_nothing_go_first_and_are_not_missed(make_model, tiny_batch, sample):
    teacher = Encoder(make_model("bert"))
    idle = [torch.arange(layer, 64, 2 + layer % 2)[:20] for layer in range(4)]
    with torch.no_grad():
        for layer, neurons in enumerate(idle):
            teacher.layer_part(layer, "feed_forward_down").weight[:, neurons] = 0
    for method, scores in (("magnitude", by_magnitude(teacher)), ("activation", by_activation(teacher, sample))):
        cut = choose(teacher, Dimensions(32, 4, 44), scores)
        for layer, neurons in enumerate(idle):
            assert sorted([*cut.inner[layer].tolist(), *neurons.tolist()]) == list(range(64)), method
    student = student_of(teacher, inner=44, shrink="magnitude")
    torch.testing.assert_close(logits(student, tiny_batch), logits(teacher, tiny_batch), rtol=1e-5, atol=1e-5)


def test_heads_whose_values_are_not_read_are_pruned(make_model, sample):
    teacher = Encoder(make_model("bert"))
    idle = (0, 3, 1, 2)
    with torch.no_grad():
        for layer, head in enumerate(idle):
            teacher.layer_part(layer, "attention_output").weight[:, 8 * head : 8 * head + 8] = 0
    for scores in (by_magnitude(teacher), by_activation(teacher, sample)):
        cut = choose(teacher, Dimensions(24, 3, 64), scores)
        for layer, head in enumerate(idle):
            assert sorted({int(place) // 8 for place in cut.value[layer]}) == [n for n in range(4) if n != head]
            assert cut.value[layer].tolist() == cut.query_key[layer].tolist()


def test_mpnet_keeps_the_same_heads_in_every_layer_as_its_relative_positions_are_shared(make_model, sample):
    teacher = Encoder(make_model("mpnet"))
    cut = choose(teacher, Dimensions(16, 2, 64), by_activation(teacher, sample))
    assert {tuple(sorted({int(place) // 8 for place in places})) for places in cut.value} == {tuple(cut.heads.tolist())}
    student = student_of(teacher, width=16, heads=2, shrink="magnitude")
    assert student.weight("mpnet.encoder.relative_attention_bias").shape == (32, 2)


def test_smaller_heads_keep_the_size_of_attention_scores(make_model):
    # Query and key of each head use only its first 4 dimensions: without the others the scores are the same.
    teacher = Encoder(make_model("bert"))
    with torch.no_grad():
        for part in ("query", "key"):
            module = teacher.layer_part(0, part)
            dead = torch.arange(32).view(4, 8)[:, 4:].flatten()
            module.weight[dead] = 0
            module.bias[dead] = 0
    student = narrow(teacher, range(4), teacher, Dimensions(16, 4, 64), "magnitude", (), 1)
    states = torch.randn(5, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wide = [teacher.layer_part(0, part) for part in ("query", "key")]
        small = [student.layer_part(0, part) for part in ("query", "key")]
        places = choose(teacher, Dimensions(16, 4, 64), by_magnitude(teacher)).stream
        states[:, [n for n in range(32) if n not in places.tolist()]] = 0
        expected = [(q @ k.T) / 8**0.5 for q, k in zip(*(m(states).view(5, 4, 8).transpose(0, 1) for m in wide), strict=True)]
        got = [(q @ k.T) / 4**0.5 for q, k in zip(*(m(states[:, places]).view(5, 4, 4).transpose(0, 1) for m in small), strict=True)]
    torch.testing.assert_close(torch.stack(got), torch.stack(expected), rtol=1e-5, atol=1e-5)


def test_the_strongest_are_the_highest_scores_in_their_old_order_and_lower_places_first_among_equals():
    assert strongest(torch.tensor([1.0, 5.0, 2.0, 5.0, 1.0]), 3).tolist() == [1, 2, 3]
    assert strongest(torch.tensor([1.0, 1.0, 1.0]), 2).tolist() == [0, 1]
    scores = torch.tensor([9.0, 1.0, 8.0, 2.0, 3.0, 4.0])  # 2 heads of 3
    assert head_dimensions(scores, torch.tensor([1, 0]), of_heads=2, size=2).tolist() == [4, 5, 0, 2]


def test_magnitudes_are_products_of_squared_norms_of_what_writes_and_reads(make_model):
    teacher = Encoder(make_model("bert"))
    layer = by_magnitude(teacher).layers[2]
    get = lambda part: teacher.layer_part(2, part).weight.detach().double()  # noqa: E731
    query, key, value, output = (get(part) for part in ("query", "key", "value", "attention_output"))
    up, down = get("feed_forward_up"), get("feed_forward_down")
    assert float(layer.query_key[7]) == pytest.approx(float((query[7] ** 2).sum() * (key[7] ** 2).sum()))
    assert float(layer.value[9]) == pytest.approx(float((value[9] ** 2).sum() * (output[:, 9] ** 2).sum()))
    assert float(layer.inner[11]) == pytest.approx(float((up[11] ** 2).sum() * (down[:, 11] ** 2).sum()))
    assert float(layer.heads(4)[1]) == pytest.approx(float(layer.value[8:16].sum()))


def test_activations_are_measured_on_real_positions_alone(make_model, sample):
    teacher = Encoder(make_model("bert"))
    before = by_activation(teacher, sample)
    other = [Batch(b.input_ids.where(b.real, torch.tensor(99)), b.labels, b.positions, b.segments, b.windows) for b in sample]
    after = by_activation(teacher, other)
    torch.testing.assert_close(after.stream, before.stream, rtol=1e-6, atol=0)
    torch.testing.assert_close(after.layers[1].inner, before.layers[1].inner, rtol=1e-6, atol=0)


def test_a_regression_finds_the_map_that_made_the_data():
    generator = torch.Generator().manual_seed(4)
    inputs, matrix, offset = (torch.randn(shape, generator=generator) for shape in ((500, 6), (3, 6), (3,)))
    found, shift = regression(inputs, inputs @ matrix.T + offset)
    torch.testing.assert_close(found, matrix, rtol=5e-3, atol=5e-3)
    torch.testing.assert_close(shift, offset, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "electra", "mpnet"])
def test_what_is_fitted_is_nearer_to_the_teacher_than_what_is_chosen_by_magnitude_and_that_than_chance(make_model, sample, family):
    teacher = Encoder(make_model(family))
    fresh = [Batch(b.input_ids.flip(0, 1).where(b.real, torch.tensor(0)), b.labels, b.positions, b.segments, b.windows) for b in sample[:2]]
    shape = {"width": 24, "heads": 4, "inner": 48}
    far = {m: distance(student_of(teacher, sample, **shape, shrink=m), teacher, fresh) for m in ("magnitude", "activation", "projection")}
    far["random"] = distance(student_of(teacher, sample, **shape, shrink="random"), teacher, fresh)
    assert far["activation"] < 0.8 * far["magnitude"], far
    assert far["projection"] < 0.8 * far["magnitude"], far
    assert far["activation"] < 0.8 * far["random"], far


def test_fitting_also_makes_up_for_layers_that_are_left_out(make_model, sample):
    teacher = Encoder(make_model("bert"))
    settings = {"layers": "every_other", "count": 3}
    copied, fitted = student_of(teacher, **settings), student_of(teacher, sample, **settings, shrink="activation")
    assert dimensions_of(fitted) == FULL
    assert distance(fitted, teacher, sample[:1]) < 0.7 * distance(copied, teacher, sample[:1])


def test_the_fit_at_full_width_is_the_teacher_to_the_ridge_and_a_rotation_only_where_layernorms_scale_alike(make_model, sample):
    """A rotated stream needs Q^T diag(g) Q where a LayerNorm has a diagonal; with one g for all channels that is a diagonal."""
    everything = [tuple(torch.arange(n) for _ in range(4)) for n in (32, 32, 64)]
    errors = {}
    for alike in (False, True):
        model = make_model("bert")
        if alike:
            with torch.no_grad():
                for module in model.modules():
                    if isinstance(module, torch.nn.LayerNorm):
                        module.weight.fill_(1.3)
        teacher = Encoder(model)
        for name, stream in (("selection", torch.arange(32)), ("rotation", None)):
            student = student_of(teacher)
            with torch.no_grad():
                fit(teacher, range(4), teacher, student, Kept(stream, *everything), sample, with_head=False)
            with torch.no_grad():
                wide, narrow_states = (torch.cat([m(b).last_hidden[b.real] for b in sample]) for m in (teacher, student))
            matrix, offset = regression(narrow_states, wide)
            errors[name, alike] = float((narrow_states @ matrix.T + offset - wide).square().mean() / wide.var())
    assert errors["selection", False] < 1e-3, errors
    assert errors["rotation", True] < 1e-4, errors
    assert errors["rotation", False] > 3e-4, errors


@pytest.mark.parametrize("family", ["deberta-v3", "modernbert", "albert"])
def test_projection_is_refused_where_it_cannot_be_done_and_activation_takes_its_place_by_default(make_model, sample, family):
    teacher = Encoder(make_model(family))
    assert not can_fit(teacher)
    with pytest.raises(KdError, match=r"student.shrink: expected a family whose norms all follow .* got .*; use activation or magnitude"):
        student_of(teacher, sample, width=16, heads=2, shrink="projection")
    assert student_of(teacher, sample, width=16, heads=2).width == 16


def test_a_narrow_distilbert_of_a_bert_with_the_fold(make_model, tiny_batch, sample):
    teacher = Encoder(make_model("bert"))
    student = student_of(teacher, sample, architecture="distilbert", width=24)
    assert (student.family.name, student.width, student.heads, dimensions_of(student).inner) == ("distilbert", 24, 4, 48)
    assert torch.isfinite(logits(student, tiny_batch)).all()


def test_a_student_of_the_same_seed_is_the_same_and_the_teacher_is_left_alone(make_model, sample):
    teacher = Encoder(make_model("bert"))
    before = {name: weight.clone() for name, weight in teacher.hf.state_dict().items()}
    state = torch.random.get_rng_state()
    one, two = (student_of(teacher, sample, width=24, shrink="projection").hf.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(before[name], weight) for name, weight in teacher.hf.state_dict().items())


def test_the_random_control_has_the_teachers_shape_and_none_of_its_weights(make_model, tiny_batch):
    teacher = Encoder(make_model("bert"))
    student = student_of(teacher, shrink="random")
    assert dimensions_of(student) == FULL
    assert (logits(student, tiny_batch) - logits(teacher, tiny_batch)).abs().mean() > 0.5


def test_without_a_sample_the_methods_that_look_at_text_say_so(make_model):
    with pytest.raises(KdError, match=r"student.shrink: expected a sample of text for projection, got none; use magnitude"):
        student_of(Encoder(make_model("bert")), width=16, heads=4)


@pytest.mark.parametrize(
    ("family", "asked", "said"),
    [
        ("bert", {"width": 40}, r"student.width: expected at most 32, the teacher's, got 40"),
        ("bert", {"heads": 8}, r"student.heads: expected at most 4, the teacher's, got 8"),
        ("bert", {"inner": 65}, r"student.inner: expected at most 64, the teacher's, got 65"),
        ("bert", {"width": 30}, r"student.heads: expected heads that divide student.width = 30, got 4"),
        ("bert", {"width": 24, "heads": 2}, r"student.heads: expected heads of at most 8 dimensions, the teacher's, got 12; use 3 heads"),
        ("bert", {"heads": 2}, r"expected heads of at most 8 dimensions, the teacher's, got 16; use 4 heads"),
        ("modernbert", {"width": 24}, r"student.heads: expected heads of 8 dimensions, as modernbert turns them .* got 6"),
        ("bert", {"shape": "4x312"}, r"student.width: expected at most 32, the teacher's, got 312"),
    ],
)
def test_a_size_that_the_teacher_cannot_give_is_one_line_before_weights_are_needed(make_model, family, asked, said):
    teacher = Encoder(make_model(family).to("meta"))
    with pytest.raises(KdError, match=said) as error:
        student_of(teacher, **asked)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"shape": "5x100"}, "6x768"),
        ({"width": 0}, "greater than 0"),
        ({"shape": "4x312", "width": 300}, "expected 312 with shape: 4x312, got 300"),
        ({"shape": "4x312", "count": 3}, "expected 4 layers with shape: 4x312, got 3"),
        ({"shape": "3x384", "layers": [0, 2]}, "expected 3 layers with shape: 3x384, got 2"),
        ({"shape": "4x312", "layers": "distilbert"}, "got 6"),
        ({"init": "somewhere", "width": 100}, "expected init: teacher"),
        ({"shrink": "pca"}, "magnitude"),
    ],
)
def test_settings_of_size_that_contradict_themselves_are_refused(settings, said):
    with pytest.raises(ValidationError, match=said):
        StudentSettings(**settings)


def test_a_preset_is_layers_and_shape(make_model):
    assert {name: (layers, *vars(shape).values()) for name, (layers, shape) in PRESETS.items()} == {
        "6x768": (6, 768, 12, 3072),
        "4x312": (4, 312, 12, 1200),
        "6x384": (6, 384, 12, 1536),
        "3x384": (3, 384, 12, 1536),
    }
    big = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072, "vocab_size": 30}
    with torch.device("meta"):
        teacher = Encoder(BertForMaskedLM(BertConfig(num_hidden_layers=12, **big)))
        for name, (layers, shape) in PRESETS.items():
            student = make_student(StudentSettings(shape=name, architecture="same"), teacher, 1)
            assert (student.layers, dimensions_of(student)) == (layers, shape)
    assert narrowed(teacher, 312, None, None) == Dimensions(312, 12, 1248)


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ({}, False),
        ({"width": 8}, True),
        ({"shape": "4x312"}, True),
        ({"shrink": "activation"}, True),
        ({"shrink": "magnitude", "width": 8}, False),
    ],
)
def test_a_sample_is_asked_for_where_text_decides(settings, needed):
    assert StudentSettings(**settings).needs_sample == needed
