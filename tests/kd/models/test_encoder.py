import pytest
import torch
from transformers import AutoConfig

from kd.batch import IGNORED, Batch
from kd.models.encoder import Encoder
from kd.models.families import FAMILIES, LAYER_PARTS
from kd.models.loading import untrained

FAMILY_NAMES = ("bert", "distilbert", "roberta")
FP32 = {"rtol": 1e-5, "atol": 1e-5}  # the same products in another order (packed or padded rows)


def one_document_rows(ids: list[list[int]], padding: int, columns: int) -> tuple[Batch, torch.Tensor]:
    """A batch of one document a row, and Hugging Face's own 2D mask for it."""
    shape = (len(ids), columns)
    input_ids, positions = torch.full(shape, padding), torch.arange(columns).expand(shape).clone()
    mask = torch.zeros(shape, dtype=torch.int64)
    for row, document in enumerate(ids):
        input_ids[row, : len(document)] = torch.tensor(document)
        mask[row, : len(document)] = 1
    batch = Batch(input_ids, torch.full(shape, IGNORED), positions, mask.clone(), torch.arange(len(ids)))
    return batch, mask


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_logits_are_those_of_the_hugging_face_model_on_padded_rows(make_model, family, attention):
    model = make_model(family)
    model.set_attn_implementation(attention)
    encoder = Encoder(model)
    documents = [[5, 17, 99, 4, 31], [8, 8, 60], [11, 12, 13, 14, 15, 16, 17, 18, 19]]
    batch, mask = one_document_rows(documents, padding=model.config.pad_token_id, columns=11)
    with torch.no_grad():
        expected = model(input_ids=batch.input_ids, attention_mask=mask).logits
        got = encoder.logits(encoder(batch).last_hidden)
    assert got.shape == (3, 11, 120)
    torch.testing.assert_close(got[batch.real], expected[batch.real], **FP32)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_packed_row_gives_what_its_documents_give_alone(make_model, tiny_batch, family):
    model = make_model(family)
    encoder = Encoder(model)
    with torch.no_grad():
        packed = encoder.logits(encoder(tiny_batch).last_hidden)
        for row in range(2):
            for segment in range(1, int(tiny_batch.segments[row].max()) + 1):
                inside = tiny_batch.segments[row] == segment
                ids = tiny_batch.input_ids[row, inside][None]
                alone = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
                torch.testing.assert_close(packed[row, inside], alone, **FP32)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_padding_changes_no_real_position(make_model, tiny_batch, family):
    encoder = Encoder(make_model(family))
    other = tiny_batch.input_ids.where(tiny_batch.real, torch.tensor(77))
    with torch.no_grad():
        plain = encoder(tiny_batch).last_hidden
        changed = encoder(Batch(other, *[getattr(tiny_batch, n) for n in ("labels", "positions", "segments", "windows")])).last_hidden
    assert torch.isfinite(plain).all()
    torch.testing.assert_close(changed[tiny_batch.real], plain[tiny_batch.real], rtol=0, atol=0)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_sizes_parts_and_tying_are_read_from_the_structure(make_model, family):
    encoder = Encoder(make_model(family, layers=5))
    assert (encoder.layers, encoder.width, encoder.heads) == (5, 32, 4)
    assert (encoder.vocabulary, encoder.max_positions) == (120, 40)
    assert len(encoder.layer_modules) == 5
    assert encoder.tied
    assert encoder.decoder_weight is encoder.hf.get_input_embeddings().weight
    assert encoder.decoder_bias.shape == (120,)
    sizes = [tuple(encoder.layer_part(4, name).weight.shape) for name in LAYER_PARTS]
    assert sizes == [(32, 32)] * 4 + [(32,), (64, 32), (32, 64), (32,)]


def test_the_last_usable_position_of_roberta_is_accepted_and_no_further_one(make_model):
    encoder = Encoder(make_model("roberta"))
    ids = torch.full((1, 41), 9)
    batch = Batch(ids, ids, torch.arange(41)[None], torch.ones_like(ids), torch.zeros(1))
    with pytest.raises((IndexError, RuntimeError)):
        encoder(batch)
    short = Batch(ids[:, :40], ids[:, :40], torch.arange(40)[None], torch.ones_like(ids[:, :40]), torch.zeros(1))
    assert encoder(short).last_hidden.shape == (1, 40, 32)


def test_every_path_of_every_family_exists_in_a_model_built_from_its_default_config():
    for name in FAMILIES:
        with torch.device("meta"):
            encoder = untrained(AutoConfig.for_model(name))
        family = encoder.family
        assert encoder.decoder_bias.shape == (encoder.vocabulary,)
        assert encoder.max_positions > 0
        for path in (family.embedding_norm, family.head_norm, family.position_embeddings, family.token_type_embeddings):
            assert path is None or encoder.weight(path) is not None
