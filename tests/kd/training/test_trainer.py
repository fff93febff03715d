"""Updates on one and two ranks, every ZeRO stage, both precisions and several micro-batches, against one plain torch loop."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from trainer_on_ranks import CLIP, COLUMNS, OPTIMIZER, ROWS, UPDATES, row
from whole_outputs import whole

from kd.batch import IGNORED
from kd.errors import KdError
from kd.models.config import quiet_transformers
from kd.models.encoder import Encoder
from kd.models.loading import load_mlm
from kd.teacher.teachers import Teachers
from kd.terms import SoftTargets
from kd.terms.schedules import OptimizerSettings, learning_rate
from kd.training.phases import phases_of
from kd.training.settings import TrainSettings
from kd.training.trainer import Trainer
from kd.training.update_report import reported


def plain_loop(teacher: Encoder, student: Encoder) -> tuple[list[float], list[float], dict[str, float]]:
    """DistilBERT's objective and AdamW as a textbook would write them: whole logits, one batch, torch alone."""
    decayed = [p for p in student.parameters() if p.dim() >= 2]
    others = [p for p in student.parameters() if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": OPTIMIZER.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=OPTIMIZER.betas, eps=OPTIMIZER.epsilon)
    losses, norms = [], []
    for update in range(UPDATES):
        ids, labels, positions, segments = (torch.stack(c) for c in zip(*(row(update, slot) for slot in range(ROWS)), strict=True))
        mask = segments[:, None, :, None] == segments[:, None, None, :]
        real, masked = segments > 0, labels != IGNORED

        with torch.no_grad():
            teacher_logits, teacher_last = whole(teacher, ids, mask, positions)
        logits, last = whole(student, ids, mask, positions)
        p = F.softmax(teacher_logits / 2, -1)
        kl = 4 * (p * (F.log_softmax(teacher_logits / 2, -1) - F.log_softmax(logits / 2, -1))).sum(-1)
        mlm = F.cross_entropy(logits[masked], labels[masked])
        cosine = 1 - F.cosine_similarity(last[real], teacher_last[real], dim=-1)
        loss = 5 * kl[real].mean() + 2 * mlm + cosine.mean()
        for group in optimizer.param_groups:
            group["lr"] = OPTIMIZER.learning_rate * min((update + 1) / 2, 1 - max(0, update - 2) / 2)
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(student.parameters(), CLIP)))
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses, norms, {f"student.{n}": p.detach().double().sum().item() for n, p in student.named_parameters()}


@pytest.mark.slow
def test_every_stage_precision_micro_batch_and_number_of_ranks_does_what_plain_torch_does(make_model, tmp_path, run_ranks):
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    with quiet_transformers():
        make_model("bert", layers=3).save_pretrained(teacher)
        make_model("distilbert", seed=2, layers=2, dropout=0.0, attention_dropout=0.0).save_pretrained(student)
    losses, norms, weights = plain_loop(load_mlm(str(teacher)), load_mlm(str(student)).train())
    assert norms[0] > CLIP  # clipping is at work
    for ranks in (1, 2):
        result = tmp_path / f"ranks-{ranks}.json"
        run_ranks(ranks, "trainer_on_ranks", result, teacher, student, tmp_path / f"checkpoints-{ranks}")
        report = json.loads(result.read_text())
        assert len(report) == 4 * 3 + 2 + 5
        for name, seen in report.items():
            where = f"{ranks} ranks, {name}"
            if name.endswith("nan"):
                assert all(seen.values()), f"{where}: {seen}"
                continue
            exact = "bf16" not in name
            assert seen["losses"] == pytest.approx(losses, rel=2e-5 if exact else 0.03), where  # bf16: 8 bits of mantissa
            if name.endswith("checkpointing"):
                continue
            assert seen["norms"] == pytest.approx(norms, rel=1e-4 if exact else 0.1), where
            assert seen["rates"] == [0.001, 0.002, 0.002, 0.001]
            assert seen["tokens"] == [ROWS * COLUMNS - sum(slot % 5 for slot in range(ROWS))] * UPDATES
            assert seen["bit_identical"], where
            assert seen["rolled_back"], where
            assert seen["snapshot"], where
            if exact:
                for key, total in weights.items():
                    assert seen["weights"][key] == pytest.approx(total, abs=2e-3), f"{where}: {key}"


@pytest.mark.slow
def test_one_rank_sums_no_gradients_and_learns_the_same_bits(make_model, tmp_path, run_ranks):
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    with quiet_transformers():
        make_model("bert", layers=3).save_pretrained(teacher)
        make_model("distilbert", seed=2, layers=2).save_pretrained(student)
    run_ranks(1, "sums_of_one_rank", tmp_path / "result.json", teacher, student)
    report = json.loads((tmp_path / "result.json").read_text())
    assert all(one["same"] for one in report.values()), report
    for name in ("stage 0, fp32", "stage 0, bf16", "stage 1, bf16"):
        ours, summed = report[name]["buckets"]
        assert ours == 0, name
        assert summed > 0, name


def test_an_objective_that_needs_a_teacher_is_refused_without_one(tiny_distilbert):
    with pytest.raises(KdError, match="expected a teacher that offers logits"):
        Trainer(
            tiny_distilbert,
            Teachers([]),
            phases_of([], [SoftTargets()], OptimizerSettings(), 1),
            vocabulary=120,
            train=TrainSettings(global_batch=2, micro_batch=2, updates=1),
            precision="fp32",
        )


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1.0, 1.0, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125)]),
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_learning_rates_warm_up_and_decay_by_hand(schedule, expected):
    settings = OptimizerSettings(learning_rate=1.0, warmup=2, schedule=schedule)
    assert [learning_rate(settings, update, 6) for update in range(6)] == pytest.approx(expected)


def test_warm_up_below_one_is_a_share_of_the_run_and_the_last_share_stays():
    settings = OptimizerSettings(learning_rate=1.0, warmup=0.05, final_share=0.1)
    assert settings.warmup_updates(1000) == 50
    assert learning_rate(settings, 999, 1000) == pytest.approx(0.1 + 0.9 / 950)


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"global_batch": 8, "micro_batch": 3, "updates": 1}, "multiple of micro_batch, got 8 and 3"),
        ({"global_batch": 8, "micro_batch": 2}, "exactly one of updates, tokens and epochs, got none"),
        ({"global_batch": 8, "micro_batch": 2, "updates": 1, "epochs": 2}, "got updates, epochs"),
    ],
)
def test_contradictory_batch_arithmetic_is_refused(wrong, line):
    with pytest.raises(ValueError, match=line):
        TrainSettings(**wrong)


def test_a_global_batch_that_does_not_divide_over_the_ranks_is_refused():
    settings = TrainSettings(global_batch=8, micro_batch=4, updates=1)
    assert settings.micro_batches(2) == 1
    with pytest.raises(ValueError, match="multiple of micro_batch x ranks = 4 x 3, got 8"):
        settings.micro_batches(3)


def test_a_term_that_found_nothing_to_look_at_reports_nothing():
    assert reported(["mlm", "rkd_angle", "cosine"], [2.5, 0.0, 0.0], [40.0, 0.0, 512.0]) == {"mlm": 2.5, "cosine": 0.0}
