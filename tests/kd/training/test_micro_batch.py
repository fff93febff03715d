"""Costs of a micro-batch that are counted, not timed: the largest tensor, the matrix products, and reads that make a GPU wait."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from trainer_on_ranks import ROWS, VOCABULARY, batches

from kd.models.loading import load_mlm
from kd.objective.objective import Objective
from kd.objective.selection import Selection
from kd.teacher.hidden_state_cache import DTYPES
from kd.teacher.settings import MemberSettings
from kd.teacher.teachers import fit_objective, make_teachers
from kd.terms import HiddenCosine, MaskedLM, SoftTargets
from kd.training.distillation_module import DistillationModule

ROOT, LAYERS, CHUNK = Path(__file__).resolve().parents[3], 2, 50
WAITS = ("_local_scalar_dense", "nonzero", "masked_select")
CPU_ONLY = {"kd/objective/vocabulary_head.py:backward"}
"""Functions that read a value where the device is a CPU, and only there (see test_device_reads.py)."""


class Counting(TorchDispatchMode):
    """Counts of operators, the shapes of all tensors that they make, and the functions of kd that read values on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: Counter[str] = Counter()
        self.waits: set[str] = set()
        self.shapes: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        made = function(*arguments, **(keywords or {}))
        name = function.overloadpacket.__name__
        self.operators[name] += 1
        if name in WAITS:
            self.waits.add(caller())
        self.shapes |= {tuple(one.shape) for one in (made if isinstance(made, tuple | list) else [made]) if isinstance(one, torch.Tensor)}
        return made


def caller() -> str:
    """The innermost function of kd on the stack, with its file."""
    frame = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT / "kd"):
            return f"{path.relative_to(ROOT)}:{frame.f_code.co_name}"
        frame = frame.f_back
    return "torch"


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counting]:
    mode, plain = Counting(), torch.Tensor.tolist
    with monkeypatch.context() as patch, mode:
        patch.setattr(torch.Tensor, "tolist", lambda self: (mode.waits.add(caller()), plain(self))[1])  # of a CPU, it is no operator
        yield mode


def micro_batch(
    make_model, saved, positions: str, attention: str, monkeypatch: pytest.MonkeyPatch, precision: str = "fp32"
) -> tuple[Counting, int]:
    """The counts of the second micro-batch, forward and backward, and its number of positions with logits."""
    teacher = saved(make_model("bert", layers=LAYERS))
    student = load_mlm(saved(make_model("bert", seed=2, layers=LAYERS)))
    student.use_attention(attention)
    teachers = make_teachers([MemberSettings(model=teacher)], "mean", 1, precision, torch.device("cpu"))
    terms = [SoftTargets(positions=positions), MaskedLM(), HiddenCosine(positions=positions)]
    objective = fit_objective(Objective(terms, CHUNK), student.shape, teachers.shapes, teachers.mixing, None)
    module = DistillationModule(student, objective, VOCABULARY).to(DTYPES[precision])
    for batch in (batches(0, ROWS)[0], batches(1, ROWS)[0]):
        selection = Selection(batch, objective.on_logits)
        divisors = objective.counts(selection).double()
        selection.prepare(objective.terms)
        with teachers.teach(0, selection, objective, VOCABULARY) as outputs, counting(monkeypatch) as mode:
            module(selection, outputs, divisors)[0].backward()
    return mode, len(selection.labels)


@pytest.mark.parametrize(("positions", "attention"), [("all", "documents"), ("masked", "documents"), ("all", "sdpa")])
def test_a_micro_batch_makes_no_whole_logits_and_no_second_pass_and_waits_for_no_value(
    make_model, saved, monkeypatch, positions: str, attention: str
):
    mode, tokens = micro_batch(make_model, saved, positions, attention, monkeypatch)
    rows = max((shape[0] for shape in mode.shapes if len(shape) == 2 and shape[1] == VOCABULARY), default=0)
    assert 0 < rows <= CHUNK
    assert positions == "masked" or tokens > 2 * CHUNK
    columns = batches(1, ROWS)[0].input_ids.shape[1]
    mask = (ROWS, 1, columns, columns)
    assert (mask in mode.shapes) == (attention == "sdpa")
    chunks = -(-tokens // CHUNK)
    head, transform, encoder = 3 * chunks + 1, 3, 3 * 6 * LAYERS  # a chunk: student, teacher, states; once: weight
    count = mode.operators
    assert count["mm"] + count["addmm"] + count["linear"] <= encoder + transform + head, count
    assert count["bmm"] + count["baddbmm"] <= (12 * LAYERS if attention == "documents" else 0), count
    assert count["softmax"] + count["log_softmax"] + count["_log_softmax"] <= 3 * chunks, count  # student and teacher at T, student at 1
    assert count["_to_copy"] <= 7 + chunks, count
    assert mode.waits <= CPU_ONLY, mode.waits


def test_a_chunk_in_bf16_has_a_fixed_number_of_softmaxes_and_copies(make_model, saved, monkeypatch):
    """A chunk copies the logits of both to fp32, their gradient to bf16, and numbers of rows. The rest is once a micro-batch."""
    counts = {}
    for positions in ("masked", "all"):
        mode, tokens = micro_batch(make_model, saved, positions, "eager", monkeypatch, "bf16")
        counts[-(-tokens // CHUNK)] = mode.operators
        assert mode.waits <= CPU_ONLY, mode.waits
    (few, less), (many, more) = sorted(counts.items())
    assert many > few
    for operator, bound in (("softmax", 3), ("copy_", 6), ("_to_copy", 1)):
        assert 0 < more[operator] - less[operator] <= bound * (many - few), operator
