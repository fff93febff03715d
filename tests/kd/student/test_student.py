import pytest
import torch
from pydantic import ValidationError

from kd.errors import KdError
from kd.models.encoder import Encoder
from kd.models.families import LAYER_PARTS
from kd.student.settings import StudentSettings, chosen_layers
from kd.student.student import make_student

FAMILY_NAMES = ("bert", "distilbert", "roberta")
ROUNDING = {"rtol": 1e-5, "atol": 1e-5}  # the fold adds position and token type first


@pytest.mark.parametrize(
    ("settings", "teacher_layers", "layers"),
    [
        ({"layers": "every_other"}, 12, (0, 2, 4, 6, 8, 10)),
        ({"layers": "every_other"}, 6, (0, 2, 4)),
        ({"layers": "every_other"}, 5, (0, 2)),
        ({"layers": "every_other"}, 1, (0,)),
        ({"layers": "every_other", "count": 4}, 12, (0, 3, 6, 9)),
        ({"layers": "every_other", "count": 12}, 12, tuple(range(12))),
        ({"layers": "distilbert"}, 12, (0, 2, 4, 7, 9, 11)),
        ({"layers": "first"}, 12, (0, 1, 2, 3, 4, 5)),
        ({"layers": "last"}, 12, (6, 7, 8, 9, 10, 11)),
        ({"layers": "last", "count": 2}, 6, (4, 5)),
        ({"layers": "spread"}, 12, (0, 2, 4, 7, 9, 11)),
        ({"layers": "spread", "count": 3}, 6, (0, 3, 5)),
        ({"layers": "spread", "count": 2}, 24, (0, 23)),
        ({"layers": [1, 3, 5]}, 6, (1, 3, 5)),
    ],
)
def test_a_policy_names_these_layers(settings, teacher_layers, layers):
    assert chosen_layers(StudentSettings(**settings), teacher_layers) == layers


@pytest.mark.parametrize("policy", ["every_other", "first", "last", "spread"])
def test_a_policy_gives_count_different_ascending_layers_of_the_teacher(policy):
    for teacher_layers in range(2, 25):
        for count in range(2, teacher_layers + 1):
            layers = chosen_layers(StudentSettings(layers=policy, count=count), teacher_layers)
            assert len(layers) == count
            assert list(layers) == sorted(set(layers))
            assert layers[0] >= 0
            assert layers[-1] < teacher_layers


@pytest.mark.parametrize(
    ("settings", "teacher_layers", "said"),
    [
        ({"layers": [0, 6]}, 6, "layers from 0 to 5, the teacher's last, got 6"),
        ({"layers": list(range(7))}, 6, "got 6"),
        ({"layers": "distilbert"}, 6, "teacher of 12 layers for policy distilbert, got 6; use spread"),
        ({"count": 7}, 6, "at most 6, the teacher's layers, got 7"),
        ({"layers": "spread", "count": 1}, 6, "at least 2 for policy spread"),
    ],
)
def test_layers_that_the_teacher_has_not_got_are_refused(settings, teacher_layers, said):
    with pytest.raises(KdError, match=said):
        chosen_layers(StudentSettings(**settings), teacher_layers)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"layers": []}, "at least one layer"),
        ({"layers": [0, 2, 2]}, "ascending list of different layers"),
        ({"layers": [2, 0]}, "ascending list of different layers"),
        ({"layers": [-1, 0]}, "from 0, got"),
        ({"layers": "every_third"}, "every_other"),
        ({"layers": [0, 1], "count": 3}, "expected 2, the list's length, got 3"),
        ({"layers": "distilbert", "count": 4}, "expected 6 with layers: distilbert"),
        ({"count": 0}, "greater than 0"),
        ({"new_head": True}, "model folder without a head"),
        ({"copy_layers": False, "width": 16}, "copy_layers: expected true unless layers are copied as they are"),
        ({"copy_embeddings": False, "init": "folder"}, "copy_embeddings: expected true unless layers are copied as they are"),
        ({"dropout": 1.0}, "less than 1"),
        ({"architecure": "same"}, "Extra inputs"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(settings, said):
    with pytest.raises(ValidationError, match=said):
        StudentSettings(**settings)


@pytest.mark.parametrize("architecture", ["same", "distilbert"])
@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_a_full_copy_gives_the_teachers_logits(make_model, tiny_batch, family, architecture):
    teacher = Encoder(make_model(family))
    settings = StudentSettings(layers=[0, 1, 2, 3], architecture=architecture)
    student = make_student(settings, teacher, seed=5).eval()
    assert student.family.name == (family if architecture == "same" else "distilbert")
    torch.testing.assert_close(*_logits(student, teacher, tiny_batch), **ROUNDING)


def test_a_full_copy_of_roberta_gives_its_logits(tiny_roberta, tiny_batch):
    student = make_student(StudentSettings(layers=[0, 1, 2, 3], architecture="same"), tiny_roberta, seed=5).eval()
    torch.testing.assert_close(*_logits(student, tiny_roberta, tiny_batch), rtol=0, atol=0)


def test_a_roberta_that_distilbert_can_represent_loses_its_position_offset_and_nothing_else(make_model, tiny_batch):
    teacher = Encoder(make_model("roberta", layer_norm_eps=1e-12))
    student = make_student(StudentSettings(layers=[0, 1, 2, 3]), teacher, seed=5).eval()
    assert student.max_positions == student.hf.config.max_position_embeddings == 40
    torch.testing.assert_close(*_logits(student, teacher, tiny_batch), **ROUNDING)


@pytest.mark.parametrize("architecture", ["same", "distilbert"])
def test_a_decoder_of_its_own_stays_one_and_trains_with_the_head(make_model, tiny_batch, architecture):
    teacher = Encoder(make_model("bert", tie_word_embeddings=False))
    settings = StudentSettings(layers=[0, 1, 2, 3], architecture=architecture, trainable="head")
    student = make_student(settings, teacher, seed=5).eval()
    assert not teacher.tied
    assert not student.tied
    torch.testing.assert_close(*_logits(student, teacher, tiny_batch), **ROUNDING)
    assert student.decoder_weight.requires_grad
    assert not student.weight(student.family.word_embeddings).requires_grad


def test_without_the_token_type_fold_a_full_copy_is_another_model(tiny_bert, tiny_batch):
    student = make_student(StudentSettings(layers=[0, 1, 2, 3], fold_token_type=False), tiny_bert, seed=5).eval()
    got, expected = _logits(student, tiny_bert, tiny_batch)
    assert (got - expected).abs().max() > 0.1


def test_without_the_head_only_the_heads_transform_differs(tiny_bert, tiny_batch):
    student = make_student(StudentSettings(layers=[0, 1, 2, 3], copy_head=False), tiny_bert, seed=5).eval()
    torch.testing.assert_close(student(tiny_batch).last_hidden, tiny_bert(tiny_batch).last_hidden, **ROUNDING)
    assert torch.equal(student.decoder_bias, tiny_bert.decoder_bias)
    assert torch.equal(student.decoder_weight, tiny_bert.decoder_weight)
    assert not torch.equal(student.weight("vocab_transform"), tiny_bert.weight("cls.predictions.transform.dense"))
    again = make_student(StudentSettings(layers=[0, 1, 2, 3], copy_head=False), tiny_bert, seed=5)
    other = make_student(StudentSettings(layers=[0, 1, 2, 3], copy_head=False), tiny_bert, seed=6)
    assert torch.equal(student.weight("vocab_transform"), again.weight("vocab_transform"))
    assert not torch.equal(student.weight("vocab_transform"), other.weight("vocab_transform"))


def test_random_layers_are_drawn_by_the_seed_ascending_and_all_of_them_in_the_end():
    settings = StudentSettings(layers="random", count=3)
    drawn = [chosen_layers(settings, 6, seed) for seed in range(200)]
    assert all(list(layers) == sorted(set(layers)) and len(layers) == 3 and layers[-1] < 6 for layers in drawn)
    assert len(set(drawn)) == 20, "6 over 3"
    assert chosen_layers(settings, 6, 7) == chosen_layers(settings, 6, 7)


@pytest.mark.parametrize("architecture", ["same", "distilbert"])
def test_layers_or_embeddings_that_are_not_copied_are_fresh_by_the_seed_and_all_else_is_the_teachers(tiny_bert, architecture):
    for setting in ("copy_layers", "copy_embeddings"):
        settings = StudentSettings(layers=[0, 1, 2, 3], architecture=architecture, **{setting: False})
        student, again, other = (make_student(settings, tiny_bert, seed=seed) for seed in (5, 5, 6))
        own = student.family
        layer = [model.layer_part(2, "query").weight for model in (tiny_bert, student, again, other)]
        words = [model.weight(model.family.word_embeddings) for model in (tiny_bert, student, again, other)]
        for copied, (theirs, ours, same, another) in ((setting != "copy_layers", layer), (setting != "copy_embeddings", words)):
            assert torch.equal(ours, same)
            assert torch.equal(ours, theirs) == copied
            assert torch.equal(ours, another) == copied
        assert torch.equal(student.weight(own.head_dense), tiny_bert.weight(tiny_bert.family.head_dense))
        assert torch.equal(student.decoder_bias, tiny_bert.decoder_bias) == (setting != "copy_embeddings")


@pytest.mark.parametrize("architecture", ["same", "distilbert"])
def test_the_chosen_layers_are_the_teachers_in_order_with_every_part_copied(tiny_bert, architecture):
    student = make_student(StudentSettings(layers=[1, 3], architecture=architecture), tiny_bert, seed=5)
    assert student.layers == len(student.layer_modules) == 2
    for ours, theirs in ((0, 1), (1, 3)):
        for name in LAYER_PARTS:
            copied, original = student.layer_part(ours, name), tiny_bert.layer_part(theirs, name)
            assert torch.equal(copied.weight, original.weight), (ours, name)
            assert torch.equal(copied.bias, original.bias), (ours, name)
            assert copied.weight.data_ptr() != original.weight.data_ptr()


def test_making_a_student_changes_neither_the_teacher_nor_the_random_state(tiny_bert):
    before = {name: weight.clone() for name, weight in tiny_bert.hf.state_dict().items()}
    state = torch.random.get_rng_state()
    student = make_student(StudentSettings(), tiny_bert, seed=5)
    with torch.no_grad():
        for weight in student.parameters():
            weight.add_(1.0)
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, weight in tiny_bert.hf.state_dict().items():
        assert torch.equal(weight, before[name]), name
    assert tiny_bert.layers == tiny_bert.hf.config.num_hidden_layers == 4


def test_a_half_precision_teacher_gives_a_full_precision_student(make_model):
    teacher = Encoder(make_model("bert").to(torch.bfloat16))
    for architecture in ("same", "distilbert"):
        student = make_student(StudentSettings(architecture=architecture), teacher, seed=1)
        assert {weight.dtype for weight in student.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({}, "LayerNorm epsilon 1e-12 for distilbert, which fixes it, got a teacher with 1e-05; use same"),
        ({"layer_norm_eps": 1e-12, "hidden_act": "relu"}, "one activation .* relu and gelu; use same"),
    ],
)
def test_a_teacher_that_distilbert_cannot_represent_is_refused(make_model, overrides, said):
    with pytest.raises(KdError, match=said):
        make_student(StudentSettings(), Encoder(make_model("roberta", **overrides)), seed=1)


def test_a_student_from_a_teacher_needs_one():
    with pytest.raises(KdError, match="teacher: null; name a model folder"):
        make_student(StudentSettings(), None, seed=1)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_student_from_a_folder_is_that_model(make_model, saved, tiny_batch, family):
    model = make_model(family)
    student = make_student(StudentSettings(init=saved(model)), None, seed=1)
    assert student.training
    torch.testing.assert_close(*_logits(student.eval(), Encoder(model), tiny_batch), rtol=0, atol=0)


def test_a_student_from_a_headless_folder_gets_a_head_on_request(make_model, saved):
    folder = saved(make_model("bert").base_model)
    student = make_student(StudentSettings(init=folder, new_head=True), None, seed=1)
    assert student.decoder_bias.abs().max() == 0
    with pytest.raises(KdError, match="masked-LM head"):
        make_student(StudentSettings(init=folder), None, seed=1)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_head_only_training_leaves_the_tied_embeddings_and_the_layers_frozen(make_model, saved, family):
    folder = saved(make_model(family))
    student = make_student(StudentSettings(init=folder, trainable="head"), None, seed=1)
    trained = {name for name, weight in student.named_parameters() if weight.requires_grad}
    head = {weight for path in (student.family.head_dense, student.family.head_norm) for weight in (path,)}
    expected = {f"hf.{path}.{kind}" for path in head for kind in ("weight", "bias")}
    assert expected < trained
    assert len(trained) == 5  # and the decoder's bias
    assert not student.decoder_weight.requires_grad
    assert student.decoder_bias.requires_grad


def test_frozen_positions_are_the_only_frozen_weight(tiny_bert):
    student = make_student(StudentSettings(freeze_positions=True), tiny_bert, seed=1)
    frozen = [name for name, weight in student.named_parameters() if not weight.requires_grad]
    assert frozen == ["hf.distilbert.embeddings.position_embeddings.weight"]


@pytest.mark.parametrize("architecture", ["same", "distilbert"])
def test_dropout_is_the_models_own_unless_set(make_model, architecture):
    teacher = Encoder(make_model("bert", hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.3))
    own = make_student(StudentSettings(architecture=architecture), teacher, seed=1)
    assert sorted({m.p for m in own.modules() if isinstance(m, torch.nn.Dropout)}) == [0.2, 0.3]
    none = make_student(StudentSettings(architecture=architecture, dropout=0.0), teacher, seed=1)
    assert {m.p for m in none.modules() if isinstance(m, torch.nn.Dropout)} == {0.0}
    names = none.family.config
    assert (getattr(none.hf.config, names.dropout), getattr(none.hf.config, names.attention_dropout)) == (0.0, 0.0)


def _logits(student, teacher, batch):
    """Both models' logits at the real positions, [N, V]."""
    with torch.no_grad():
        return tuple(model.logits(model(batch).last_hidden)[batch.real] for model in (student, teacher))
