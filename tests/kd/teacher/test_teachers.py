"""Two teachers, whole and split over ranks, against one plain torch loop on whole logits."""

import json

import pytest
import torch
import torch.nn.functional as F
from teachers_on_ranks import SEED
from trainer_on_ranks import CLIP, OPTIMIZER, ROWS, UPDATES, row
from whole_outputs import whole

from kd.batch import IGNORED
from kd.errors import KdError
from kd.models.config import quiet_transformers
from kd.models.encoder import Encoder
from kd.models.loading import load_mlm
from kd.models.states import EncoderShape
from kd.objective.objective import Objective
from kd.teacher.modes import ALL_OUTPUTS
from kd.teacher.teachers import check_provides, drawn, fit_objective
from kd.terms import AttentionKL, HiddenCosine, SoftTargets


def plain_loop(teachers: list[Encoder], student: Encoder, combine: str) -> list[dict[str, float]]:
    """The terms of each update, unweighted, as a textbook would write them."""
    groups = [
        {"params": [p for p in student.parameters() if p.dim() >= 2], "weight_decay": OPTIMIZER.weight_decay},
        {"params": [p for p in student.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=OPTIMIZER.betas, eps=OPTIMIZER.epsilon)
    found = []
    for update in range(UPDATES):
        ids, labels, positions, segments = (torch.stack(c) for c in zip(*(row(update, slot) for slot in range(ROWS)), strict=True))
        mask = segments[:, None, :, None] == segments[:, None, None, :]
        real, masked = segments > 0, labels != IGNORED
        with torch.no_grad():
            taught = [whole(teacher, ids, mask, positions) for teacher in teachers]
        logits, last = whole(student, ids, mask, positions)

        def kl(p: torch.Tensor, temperature: float, own: torch.Tensor = logits, at: torch.Tensor = real) -> torch.Tensor:
            return temperature**2 * (p * (p.log() - F.log_softmax(own / temperature, -1))).sum(-1)[at].mean()

        cosine = (1 - F.cosine_similarity(last[real], taught[0][1][real], dim=-1)).mean()
        mlm = F.cross_entropy(logits[masked], labels[masked])
        if combine == "mean":
            p = 0.75 * F.softmax(taught[0][0] / 2, -1) + 0.25 * F.softmax(taught[1][0] / 2, -1)
            terms = {"soft_targets_1": kl(p, 2), "soft_targets_2": kl(F.softmax(taught[1][0], -1), 1), "mlm": mlm, "cosine": cosine}
            loss = 5 * terms["soft_targets_1"] + terms["soft_targets_2"] + 2 * mlm + cosine
        else:
            k = drawn(SEED, update, (0.75, 0.25))
            terms = {"soft_targets": kl(F.softmax(taught[k][0] / 2, -1), 2), "mlm": mlm}
            loss = 5 * terms["soft_targets"] + 2 * mlm
        for group in optimizer.param_groups:
            group["lr"] = OPTIMIZER.learning_rate * min((update + 1) / 2, 1 - max(0, update - 2) / 2)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), CLIP)
        optimizer.step()
        found.append({name: float(value.detach()) for name, value in terms.items()})
    return found


def test_a_term_on_states_learns_from_whichever_teacher_is_drawn():
    """The objective knows one size for all; the trainer asks what each teacher must give."""
    shape = EncoderShape(4, 32, 4)
    objective = fit_objective(Objective([HiddenCosine(), SoftTargets()], 1), EncoderShape(2, 32, 4), [shape, shape], "random")
    for number in (0, 1):
        assert objective.needs_of(number) == {"last_hidden", "logits"}
        check_provides(objective, number, ALL_OUTPUTS, "all")


def test_a_teacher_that_a_term_cannot_use_is_refused_in_any_place():
    shapes = [EncoderShape(4, 32, 4), EncoderShape(4, 32, 4, "deberta-v2", dot_product_scores=False)]
    for teachers in (shapes, shapes[::-1]):
        with pytest.raises(KdError, match="expected a teacher whose attention scores are Q K"):
            fit_objective(Objective([AttentionKL(layer_map="final")], 1), EncoderShape(2, 32, 4), teachers, "random")


@pytest.mark.slow
def test_two_teachers_of_different_sizes_and_modes_teach_what_plain_torch_says(make_model, tmp_path, run_ranks):
    folders = [tmp_path / name for name in ("first", "second", "student")]
    with quiet_transformers():
        make_model("bert", layers=3).save_pretrained(folders[0])
        make_model("bert", seed=4, layers=2, hidden_size=48, intermediate_size=64).save_pretrained(folders[1])
        make_model("distilbert", seed=2, layers=2, dropout=0.0, attention_dropout=0.0).save_pretrained(folders[2])
    assert len({drawn(SEED, update, (0.75, 0.25)) for update in range(UPDATES)}) == 2, "the seed lets both teach"
    result = tmp_path / "result.json"
    teachers = [load_mlm(str(folder)) for folder in folders[:2]]
    expected = {combine: plain_loop(teachers, load_mlm(str(folders[2])).train(), combine) for combine in ("mean", "random")}
    run_ranks(2, "teachers_on_ranks", result, *folders, tmp_path / "checkpoints")
    report = json.loads(result.read_text())
    assert len(report) == 2
    for way, seen in report.items():
        for found, wanted in zip(seen["terms"], expected[way.split("-")[0]], strict=True):
            assert found == pytest.approx(wanted, rel=2e-5), way
        assert seen["bit_identical"], way
