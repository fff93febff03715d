"""Every family beyond the first three, as a tiny random model: transformers' own logits, init, export, what the table declares."""

import json
from pathlib import Path

import pytest
import torch
from model_names import OTHERS
from transformers import AutoModelForMaskedLM

from kd.batch import IGNORED, Batch
from kd.errors import KdError
from kd.export.hugging_face import save_student
from kd.models.config import quiet_transformers, read_config
from kd.models.encoder import Encoder
from kd.models.families import FAMILIES, LAYER_PARTS
from kd.models.loading import load_mlm, with_new_head
from kd.models.outputs import Decoder
from kd.objective.teacher_outputs import TeacherOutputs
from kd.objective.vocabulary_head import chunked_terms
from kd.student.settings import StudentSettings
from kd.student.student import make_student
from kd.teacher.settings import TeacherSettings
from kd.teacher.teachers import make_teacher
from kd.terms.logits import MaskedLM

pytestmark = pytest.mark.slow

CONVOLUTION = "deberta with a convolution"
FP64 = {"rtol": 1e-10, "atol": 1e-10}
FP32 = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(params=OTHERS)
def model(request, make_model):
    return make_model(request.param).double()


def alone(model, ids):
    """transformers' own logits of one document, without a mask of ours."""
    return model(input_ids=ids[None], attention_mask=torch.ones_like(ids[None])).logits[0]


@pytest.mark.parametrize("attention", ["sdpa", "eager", "documents"])
def test_a_packed_row_gives_what_transformers_gives_for_each_document_alone(model, tiny_batch, attention):
    encoder = Encoder(model)
    tolerance = FP64 if (encoder.family.name, attention) != ("modernbert", "eager") else FP32  # its softmax is fp32 there
    encoder.use_attention(attention)
    with torch.no_grad():
        packed = encoder.logits(encoder(tiny_batch).last_hidden)
        for row in range(2):
            for segment in range(1, int(tiny_batch.segments[row].max()) + 1):
                inside = tiny_batch.segments[row] == segment
                torch.testing.assert_close(packed[row, inside], alone(model, tiny_batch.input_ids[row, inside]), **tolerance)


def test_a_convolution_over_the_row_is_right_with_one_document_a_row_and_declared_unfit_for_more(make_model):
    model = make_model(CONVOLUTION).double()
    encoder = Encoder(model)
    assert not encoder.packs
    ids = torch.randint(5, 120, (2, 12), generator=torch.Generator().manual_seed(1))
    real = torch.tensor([[1] * 12, [1] * 7 + [0] * 5])
    batch = Batch(ids, torch.full_like(ids, IGNORED), torch.arange(12).expand(2, 12), real, torch.arange(2))
    with torch.no_grad():
        logits = encoder.logits(encoder(batch).last_hidden)
        for row, length in enumerate((12, 7)):
            torch.testing.assert_close(logits[row, :length], alone(model, ids[row, :length]), **FP64)


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("bert", {}),
        ("xlm-roberta", {"pad_token_id": 5}),
        ("deberta-v3", {"position_buckets": 11}),
        ("modernbert", {"global_attn_every_n_layers": 2}),
    ],
)
def test_sizes_that_nothing_divides_are_right_too(make_model, saved, tiny_batch, tmp_path, name, own):
    """7 layers, 3 heads of 20, 77 neurons, 131 tokens, 53 positions; a student of layers 0, 3, 6, narrowed to 2 heads of 20."""
    sizes = {"hidden_size": 60, "num_attention_heads": 3, "intermediate_size": 77, "vocab_size": 131, "max_position_embeddings": 53}
    model = make_model(name, layers=7, **sizes | own)
    teacher = load_mlm(saved(model))
    settings = StudentSettings(layers=[0, 3, 6], architecture="same", width=40, heads=2, shrink="magnitude")
    student = make_student(settings, teacher, seed=3).eval()
    save_student(student, tmp_path / "student", tokenizer_folder=None)
    with quiet_transformers():
        again = AutoModelForMaskedLM.from_pretrained(tmp_path / "student")
    inside = tiny_batch.segments[0] == 2
    ids = tiny_batch.input_ids[0, inside]
    with torch.no_grad():
        for encoder, alone_there in ((teacher, model), (student, again)):
            assert encoder.logits(encoder(tiny_batch).last_hidden).shape[-1] == 131
            torch.testing.assert_close(
                encoder.logits(encoder(tiny_batch).last_hidden)[0, inside], alone(alone_there, ids), rtol=1e-4, atol=1e-4
            )
    assert (student.layers, student.width, student.heads) == (3, 40, 2)


def test_the_sliding_window_matters_in_the_packed_test_above(make_model, tiny_batch):
    narrow, wide = (Encoder(make_model("modernbert", local_attention=size)) for size in (6, 64))
    with torch.no_grad():
        assert (narrow(tiny_batch).last_hidden - wide(tiny_batch).last_hidden).abs().max() > 0.01


def test_a_full_copy_gives_the_same_logits(model, tiny_batch):
    teacher = Encoder(model)
    student = make_student(StudentSettings(layers="first", count=4, architecture="same"), teacher, seed=3).double().eval()
    with torch.no_grad():
        torch.testing.assert_close(student.logits(student(tiny_batch).last_hidden), teacher.logits(teacher(tiny_batch).last_hidden), **FP64)
    assert not {w.data_ptr() for w in student.parameters()} & {w.data_ptr() for w in teacher.parameters()}


def test_a_student_of_some_layers_is_the_teacher_with_the_others_taken_out(model, tiny_batch):
    teacher = Encoder(model)
    student = make_student(StudentSettings(layers="every_other", architecture="same"), teacher, seed=3).double().eval()
    assert student.layers == len(student.layer_modules) == 2
    if teacher.family.shared_layers:
        cut = model
        cut.config.num_hidden_layers = 2
    else:
        cut = model
        parent = teacher.part(teacher.family.layers)
        del parent[3], parent[1]
    with torch.no_grad():
        expected = Encoder(cut)
        torch.testing.assert_close(
            student.logits(student(tiny_batch).last_hidden), expected.logits(expected(tiny_batch).last_hidden), **FP64
        )


def test_an_exported_student_is_read_by_transformers_alone_with_every_key(model, tiny_batch, tmp_path):
    student = make_student(StudentSettings(layers="every_other", architecture="same"), Encoder(model), seed=3).eval()
    save_student(student, tmp_path / "student", tokenizer_folder=None)
    with quiet_transformers():
        again, report = AutoModelForMaskedLM.from_pretrained(tmp_path / "student", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    ids = tiny_batch.input_ids[0, :9]
    encoder = load_mlm(str(tmp_path / "student"))
    with torch.no_grad():
        row = Batch(ids[None], ids[None], torch.arange(9)[None], torch.ones(1, 9, dtype=torch.int64), torch.zeros(1))
        expected = student.logits(student(row).last_hidden)[0]
        torch.testing.assert_close(alone(again, ids), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(encoder.logits(encoder(row).last_hidden)[0], expected, rtol=0, atol=0)


def test_the_chunked_head_gives_the_loss_of_the_models_own_logits(model, tiny_batch):
    encoder = Encoder(model.float())
    labels = tiny_batch.labels[tiny_batch.predicted]
    with torch.no_grad():
        states = encoder.transform(encoder(tiny_batch).last_hidden[tiny_batch.predicted])
        own = torch.cat([alone(model, tiny_batch.input_ids[0, :9])[::3], alone(model, tiny_batch.input_ids[0, 9:19])])
    decoder = Decoder(encoder.decoder_weight, encoder.decoder_bias, encoder.vocabulary)
    torch.testing.assert_close(decoder.logits(states)[:3], own[:3], rtol=1e-4, atol=1e-4)
    scales = torch.full((1, len(labels)), 1 / len(labels))
    loss, _ = chunked_terms((states, decoder), TeacherOutputs({}), labels, [MaskedLM()], [None], scales, chunk_tokens=3)
    expected = torch.nn.functional.cross_entropy(decoder.logits(states).double(), labels)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=1e-6)


def test_read_config_and_loading_accept_every_family_in_silence(model, saved, capfd):
    folder = saved(model)
    capfd.readouterr()
    assert read_config(folder).model_type in FAMILIES
    loaded = load_mlm(folder, dtype=torch.float64)
    assert capfd.readouterr() == ("", "")
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(loaded.hf.state_dict()[name], weight, rtol=0, atol=0)


def test_a_headless_encoder_is_refused_and_gets_a_head_on_request(model, saved):
    folder = saved(model.float().base_model)
    with pytest.raises(KdError, match="masked-LM head"):
        load_mlm(folder)
    encoder = with_new_head(folder, seed=1)
    assert encoder.tied
    assert encoder.decoder_bias.abs().max() == 0


def test_every_layer_part_is_there_or_declared_fused(model):
    encoder = Encoder(model)
    for name in LAYER_PARTS:
        if getattr(encoder.family.layer, name) is None:
            assert encoder.family.layer.fused_qkv is not None
            with pytest.raises(KdError, match="one matrix for query, key and value"):
                encoder.layer_part(1, name)
        else:
            assert encoder.layer_part(1, name).weight is not None


@pytest.mark.parametrize(
    ("name", "scores"),
    [*((name, "scaled_dot") for name in ("bert", "distilbert", "xlm-roberta", "camembert", "electra", "albert")),
     *((name, "own") for name in ("mpnet", "deberta-v3", "modernbert"))],
)  # fmt: skip
def test_attention_is_that_of_query_and_key_where_the_table_says_so_and_only_there(make_model, name, scores):
    model = make_model(name).double()
    model.set_attn_implementation("eager")
    encoder = Encoder(model)
    assert encoder.family.scores == scores
    if encoder.family.layer.query is None:
        return
    seen = {}  # of the first call alone: DeBERTa projects its positions too
    for part in ("query", "key"):
        encoder.layer_part(0, part).register_forward_hook(lambda m, i, o, part=part: None if part in seen else seen.update({part: o}))
    ids = torch.arange(10, 18)[None]
    with torch.no_grad():
        attention = model(input_ids=ids, attention_mask=torch.ones_like(ids), output_attentions=True).attentions[0][0]
    q, k = (seen[part][0].view(8, 4, 8).transpose(0, 1) for part in ("query", "key"))
    recomputed = (q @ k.transpose(1, 2) / 8**0.5).softmax(-1)
    assert torch.allclose(recomputed, attention, atol=1e-9) == (scores == "scaled_dot")


@pytest.mark.parametrize("name", ["mpnet", "deberta-v3", "modernbert", "albert", "electra"])
def test_distilberts_architecture_is_refused_where_it_cannot_hold_the_teacher(make_model, name):
    with pytest.raises(KdError, match=r"student.architecture: expected a teacher whose layers distilbert can hold, got .*; use same"):
        make_student(StudentSettings(), Encoder(make_model(name)), seed=1)


def test_the_fold_makes_a_distilbert_of_an_electra_of_one_width(make_model, tiny_batch):
    teacher = Encoder(make_model("electra of one width").double())
    student = make_student(StudentSettings(layers=[0, 1, 2, 3]), teacher, seed=1).double().eval()
    assert student.family.name == "distilbert"
    with torch.no_grad():
        got, expected = (m.logits(m(tiny_batch).last_hidden)[tiny_batch.real] for m in (student, teacher))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)  # the fold is done in fp32


def test_modernberts_first_layer_has_to_be_among_the_students(make_model):
    teacher = Encoder(make_model("modernbert"))
    with pytest.raises(KdError, match=r"expected layer 0 among the layers of modernbert.*got \[2, 3\]"):
        make_student(StudentSettings(layers="last", architecture="same"), teacher, seed=1)
    kept = make_student(StudentSettings(layers=[0, 3], architecture="same"), teacher, seed=1).hf.config.layer_types
    assert kept == ["full_attention", "full_attention"]


def test_dropout_reaches_every_place_of_modernbert(make_model):
    student = make_student(StudentSettings(architecture="same", dropout=0.25), Encoder(make_model("modernbert")), seed=1)
    assert {m.p for m in student.modules() if isinstance(m, torch.nn.Dropout)} == {0.25}
    assert {layer.attn.attention_dropout for layer in student.layer_modules} == {0.25}
    config = student.hf.config
    assert (config.mlp_dropout, config.embedding_dropout, config.attention_dropout) == (0.25, 0.25, 0.25)


def test_positions_cannot_be_frozen_where_there_is_no_table_of_them(make_model):
    with pytest.raises(KdError, match=r"student.freeze_positions: expected a table of positions, got none in modernbert"):
        make_student(StudentSettings(architecture="same", freeze_positions=True), Encoder(make_model("modernbert")), seed=1)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("modernbert", {"decoder_bias": False}, "a decoder with a bias"),
        ("albert", {"num_hidden_groups": 2}, "one layer that all passes share, got num_hidden_groups: 2"),
        ("albert", {"inner_group_num": 2}, "inner_group_num: 2"),
        ("deberta-v3", {"embedding_size": 16}, "embeddings as wide as the layers"),
        ("mpnet", {"relative_attention_num_buckets": 12}, "relative_attention_num_buckets of at least 32, .*, got 12"),
        ("modernbert", {"hidden_size": 60}, "heads of an even size, got 60 / 4 = 15"),
        ("mpnet", {"num_attention_heads": 5}, "num_attention_heads to divide hidden_size = 32, got 5"),
    ],
)
def test_a_variant_that_is_not_computed_here_is_one_line_before_weights_are_read(make_model, saved, name, change, said):
    folder = saved(make_model(name))
    config = Path(folder) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    (Path(folder) / "model.safetensors").write_bytes(b"never read")
    with pytest.raises(KdError, match=said) as error:
        read_config(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "legacy", "advice"), [("deberta-v3", True, "legacy: false"), ("deberta-v2", False, "legacy: true")])
def test_debertas_other_head_is_named(make_model, saved, name, legacy, advice):
    folder = saved(make_model(name))
    config = Path(folder) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"legacy": legacy}))
    with pytest.raises(KdError, match=f"set {advice} in config.json"):
        load_mlm(folder)


@pytest.mark.parametrize("name", ["mpnet", "albert"])
def test_activation_checkpointing_is_refused_where_the_familys_code_has_none(make_model, name):
    with pytest.raises(KdError, match=r"train.activation_checkpointing: expected a family whose code can, got"):
        Encoder(make_model(name)).checkpoint_activations(use_reentrant=False)


def test_tensor_parallel_is_refused_where_heads_cannot_be_split(make_model, saved):
    folder = saved(make_model("mpnet"))
    with pytest.raises(KdError, match=r"teacher.mode: expected a family whose heads tensor_parallel can split, got mpnet"):
        make_teacher(TeacherSettings(model=folder, mode="tensor_parallel"), "fp32", torch.device("cpu"))


@pytest.mark.slow
def test_odd_families_teach_and_learn_sharded_on_two_ranks_as_they_do_whole(make_model, saved, run_ranks, tmp_path):
    names = ("electra", "mpnet", "deberta-v2", "deberta of its own keys", "modernbert", "albert")
    folders = {saved(make_model(name)): name for name in names}
    run_ranks(2, "families_on_ranks", tmp_path, *folders)
    for rank in range(2):
        report = {folders[folder]: found for folder, found in json.loads((tmp_path / f"rank-{rank}.json").read_text()).items()}
        assert set(report) == set(names)
        for name, found in report.items():
            assert found["error"] < 1e-4, name
            assert found["zero3"] == pytest.approx(found["zero1"], rel=1e-4), name
            assert found["zero1"][-1] < found["zero1"][0], name
