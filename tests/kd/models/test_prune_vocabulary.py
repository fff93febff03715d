"""A model of fewer ids: the same encoder and the same logits at the ids that are left."""

import pytest
import torch

from kd.batch import Batch
from kd.errors import KdError
from kd.export.hugging_face import save_student
from kd.models.encoder import Encoder
from kd.models.loading import load_mlm
from kd.models.prune_vocabulary import with_rows

KEPT = [0, 1, 2, 3, 4, *range(7, 120, 3)]


@pytest.mark.parametrize(
    "family", ["bert", "distilbert", "roberta", "electra", "mpnet", "deberta-v2", "deberta-v3", "modernbert", "albert"]
)
def test_logits_are_the_whole_models_at_the_kept_ids(make_model, tiny_batch, tmp_path, family):
    whole = Encoder(make_model(family))
    smaller = with_rows(whole, KEPT)
    new = torch.randint(5, len(KEPT), tiny_batch.input_ids.shape, generator=torch.Generator().manual_seed(2))
    new[~tiny_batch.real] = 0
    others = [getattr(tiny_batch, name) for name in ("labels", "positions", "segments", "windows")]
    with torch.no_grad():
        got = smaller.logits(smaller(Batch(new, *others)).last_hidden)
        expected = whole.logits(whole(Batch(torch.tensor(KEPT)[new], *others)).last_hidden)[..., KEPT]
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert smaller.vocabulary == smaller.hf.config.vocab_size == len(KEPT)
    assert smaller.tied == whole.tied
    save_student(smaller, tmp_path / "smaller", tokenizer_folder=None)
    assert torch.equal(load_mlm(str(tmp_path / "smaller")).decoder_weight, smaller.decoder_weight)


def test_a_decoder_of_its_own_is_cut_with_its_bias(make_model):
    whole = Encoder(make_model("bert", tie_word_embeddings=False))
    smaller = with_rows(whole, KEPT)
    assert not smaller.tied
    assert torch.equal(smaller.decoder_weight, whole.decoder_weight[KEPT])
    assert torch.equal(smaller.decoder_bias, whole.decoder_bias[KEPT])


def test_special_ids_of_the_configuration_follow(make_model):
    smaller = with_rows(Encoder(make_model("modernbert")), [0, 2, 3, 9, 10])
    config = smaller.hf.config
    assert (config.pad_token_id, config.cls_token_id, config.sep_token_id) == (0, 1, 2)


@pytest.mark.parametrize("kept", [[], [0, 1, 120], [-1, 0]])
def test_ids_that_the_model_has_not_got_are_refused(tiny_bert, kept):
    with pytest.raises(KdError, match="vocabulary: expected ids from 0 to 119, the model's"):
        with_rows(tiny_bert, kept)


def test_a_padding_id_that_positions_start_from_has_to_stay(tiny_roberta):
    with pytest.raises(KdError, match="expected the padding id 1 to stay, from which roberta counts positions, got 0"):
        with_rows(tiny_roberta, [1, 2, 3, 4, 9])
