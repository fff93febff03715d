from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from kd.batch import IGNORED
from kd.errors import KdError
from kd.evaluation import mlm
from kd.evaluation.mlm import evaluate_mlm
from kd.evaluation.scores import SCORES, Score, retention
from kd.models.encoder import Encoder

FP32 = {"rel": 1e-5}  # fp32 logits against the same model in float64
KL = {"rel": 1e-4}  # the KL is a small difference of such


def documents(batch):
    """(ids, labels) of every document of a packed batch, one by one."""
    for row in range(batch.segments.shape[0]):
        for segment in range(1, int(batch.segments[row].max()) + 1):
            inside = batch.segments[row] == segment
            yield batch.input_ids[row, inside], batch.labels[row, inside]


def float64_logits(model, batch, vocabulary):
    """Transformers alone, in float64, one document at a time: [N, V] at the predicted positions, and their labels."""
    model = model.double()
    logits, labels = [], []
    with torch.no_grad():
        for ids, wanted in documents(batch):
            predicted = wanted != IGNORED
            logits.append(model(input_ids=ids[None]).logits[0, predicted, :vocabulary])
            labels.append(wanted[predicted])
    return torch.cat(logits), torch.cat(labels)


@pytest.mark.parametrize("chunk_tokens", [1, 5, 2048])
@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_scores_are_those_of_a_plain_float64_computation(make_model, tiny_batch, family, chunk_tokens):
    scores = evaluate_mlm(Encoder(make_model(family)), [tiny_batch], teacher=Encoder(make_model("bert", 2)), chunk_tokens=chunk_tokens)
    student, labels = float64_logits(make_model(family), tiny_batch, 120)
    teacher, _ = float64_logits(make_model("bert", 2), tiny_batch, 120)
    ranks = student.argsort(dim=-1, descending=True)
    p, log_q = teacher.softmax(-1), student.log_softmax(-1)
    assert scores.tokens == len(labels) == 14  # positions 0, 3 … 21 of 24 and 0, 3 … 15 of 17
    assert scores.values["loss"] == pytest.approx(F.cross_entropy(student, labels).item(), **FP32)
    assert scores.values["top1"] == (ranks[:, 0] == labels).double().mean().item()
    assert scores.values["top5"] == (ranks[:, :5] == labels[:, None]).any(1).double().mean().item()
    assert scores.values["kl"] == pytest.approx((p * (p.log() - log_q)).sum(-1).mean().item(), **KL)
    assert scores.values["agreement"] == (teacher.argmax(-1) == ranks[:, 0]).double().mean().item()


def test_accuracies_count_the_first_and_the_first_five(tiny_bert, tiny_batch):
    with torch.no_grad():
        order = tiny_bert.logits(tiny_bert(tiny_batch).last_hidden).argsort(dim=-1, descending=True)
    for place, expected in ((0, (1.0, 1.0)), (1, (0.0, 1.0)), (4, (0.0, 1.0)), (5, (0.0, 0.0))):
        labels = order[..., place].where(tiny_batch.predicted, torch.tensor(IGNORED))
        scores = evaluate_mlm(tiny_bert, [replace(tiny_batch, labels=labels)])
        assert (scores.values["top1"], scores.values["top5"]) == expected


def test_a_model_agrees_with_itself_and_has_no_divergence(tiny_bert, tiny_batch):
    scores = evaluate_mlm(tiny_bert, [tiny_batch], teacher=tiny_bert)
    assert scores.values["kl"] == 0.0
    assert scores.values["agreement"] == 1.0
    assert retention(scores["top1"], 0.5) == 2 * scores["top1"]


def test_without_a_teacher_there_is_neither_divergence_nor_agreement(tiny_bert, tiny_batch):
    scores = evaluate_mlm(tiny_bert, [tiny_batch])
    assert (scores.values["kl"], scores.values["agreement"]) == (None, None)


def test_scores_are_means_over_tokens_and_not_over_batches(tiny_bert, tiny_batch):
    few = replace(tiny_batch, labels=tiny_batch.labels.where(torch.arange(24) < 2, torch.tensor(IGNORED)))
    both = evaluate_mlm(tiny_bert, [few, tiny_batch])
    first, second = (evaluate_mlm(tiny_bert, [batch]) for batch in (few, tiny_batch))
    assert both.tokens == first.tokens + second.tokens == 16
    mean = (first["loss"] * first.tokens + second["loss"] * second.tokens) / 16
    assert both["loss"] == pytest.approx(mean, rel=1e-12)


def test_a_batch_without_predictions_changes_nothing_and_nothing_but_such_is_refused(tiny_bert, tiny_batch):
    none = replace(tiny_batch, labels=torch.full_like(tiny_batch.labels, IGNORED))
    assert evaluate_mlm(tiny_bert, [none, tiny_batch]) == evaluate_mlm(tiny_bert, [tiny_batch])
    with pytest.raises(KdError, match="expected held-out windows with predicted positions, got none"):
        evaluate_mlm(tiny_bert, [none])
    with pytest.raises(KdError, match="got none"):
        evaluate_mlm(tiny_bert, [])


def test_dropout_is_off_meanwhile_and_the_mode_is_given_back(tiny_bert, tiny_batch):
    expected = evaluate_mlm(tiny_bert, [tiny_batch])
    tiny_bert.train()
    assert evaluate_mlm(tiny_bert, [tiny_batch]) == expected
    assert tiny_bert.training
    assert tiny_bert.hf.training


def test_rows_beyond_the_real_vocabulary_change_nothing(make_model, tiny_batch):
    narrow, wide = make_model("bert"), make_model("bert", vocab_size=128)
    with torch.no_grad():
        for name, weight in wide.named_parameters():
            source = narrow.get_parameter(name)
            weight[: len(source)].copy_(source)
            weight[len(source) :].fill_(9.0)  # and would win every position
    student, teacher = Encoder(wide), Encoder(narrow)
    expected = evaluate_mlm(teacher, [tiny_batch], teacher=teacher)
    assert evaluate_mlm(student, [tiny_batch], teacher=student, vocabulary=120) == expected
    assert evaluate_mlm(student, [tiny_batch], teacher=teacher) == expected
    assert evaluate_mlm(student, [tiny_batch])["loss"] > expected["loss"] + 1


def test_a_label_that_the_model_has_not_got_is_refused(tiny_bert, tiny_batch):
    labels = tiny_batch.labels.masked_fill(tiny_batch.predicted, 120)
    with pytest.raises(KdError, match=r"labels below 120, .* got 120; use shards of this model's tokenizer"):
        evaluate_mlm(tiny_bert, [replace(tiny_batch, labels=labels)])


def test_ranks_with_other_batches_give_the_scores_of_all_batches(tiny_bert, tiny_batch):
    other = replace(tiny_batch, labels=(tiny_batch.labels + 1).where(tiny_batch.predicted, torch.tensor(IGNORED)))
    shares = []
    evaluate_mlm(tiny_bert, [other], over_ranks=lambda sums: shares.append(sums.clone()) or sums)
    summed = evaluate_mlm(tiny_bert, [tiny_batch], over_ranks=lambda sums: sums + shares[0])
    assert summed == evaluate_mlm(tiny_bert, [tiny_batch, other])


def test_retention_is_the_share_of_the_teachers_accuracy():
    assert retention(0.3, 0.4) == pytest.approx(0.75)
    assert [retention(0.3, teacher) for teacher in (None, 0.0)] == [None, None]


def test_a_score_is_one_row_and_its_function(tiny_bert, tiny_batch, monkeypatch):
    rank_two = Score("top2", "top-2", lambda p: (p.logits.topk(2).indices == p.labels[:, None]).any(-1), ".1%")
    monkeypatch.setattr(mlm, "SCORES", (*SCORES, rank_two))
    scores = evaluate_mlm(tiny_bert, [tiny_batch])
    assert scores["top1"] <= scores["top2"] <= scores["top5"]
    assert set(scores.row) == {*(score.key for score in SCORES), "top2", "tokens"}


def test_a_device_is_asked_nothing_before_the_sums_go_over_the_ranks(make_model, tiny_batch):
    """The device is torch's meta, which has no values: any question to it raises. NCCL sums tensors on its device only."""
    encoder, teacher = (Encoder(make_model(name)).to(torch.device("meta")) for name in ("bert", "distilbert"))
    given = []

    def over_ranks(sums):
        given.append(sums)
        return torch.arange(1.0, len(sums) + 1)

    scores = evaluate_mlm(encoder, [tiny_batch, tiny_batch], teacher, over_ranks=over_ranks)
    assert [(sums.device.type, sums.dtype) for sums in given] == [("meta", torch.float64)]
    assert (scores.tokens, scores["loss"]) == (1, 2.0)
