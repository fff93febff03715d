"""Agreement, KL and entropy on training tokens: the values of whole logits in float64, the same for any split into ranks."""

import pytest
import torch
from torch import Tensor

from kd.batch import IGNORED, Batch
from kd.evaluation.scores import BANDS
from kd.models.outputs import Decoder, EncoderOutputs
from kd.objective.selection import Selection
from kd.objective.teacher_outputs import TeacherOutputs
from kd.terms import MaskedLM, SoftTargets
from kd.training.teaching import ROWS, Teaching, bands_of, request_of

VOCABULARY, WIDTH, POSITIONS = 37, 8, 12


def outputs(selection: Selection, seed: int) -> EncoderOutputs:
    draw = torch.Generator().manual_seed(seed)
    states = torch.randn(len(selection.labels), WIDTH, generator=draw)
    weight = torch.randn(VOCABULARY + 3, WIDTH, generator=draw)
    decoder = Decoder(weight, torch.randn(VOCABULARY + 3, generator=draw), VOCABULARY)
    return EncoderOutputs(torch.zeros(1), {}, states, decoder)


def batch(rows: int, first: int = 0) -> Batch:
    draw = torch.Generator().manual_seed(3)
    labels = torch.randint(0, VOCABULARY, (2 * ROWS, POSITIONS), generator=draw)
    labels[torch.rand(labels.shape, generator=draw) < 0.6] = IGNORED
    own = labels[first : first + rows]
    return Batch(own, own, own, torch.ones_like(own), torch.arange(rows), first_slot=first)


def expected(student: EncoderOutputs, teacher: EncoderOutputs, labels: Tensor, at: Tensor, bands: Tensor) -> dict[str, float]:
    """The definitions, in float64."""

    def whole(side: EncoderOutputs) -> Tensor:
        assert side.transformed is not None
        assert side.decoder is not None
        return (side.transformed.double() @ side.decoder.weight.double().T + side.decoder.bias.double())[at, :VOCABULARY]

    ours, theirs, own = whole(student), whole(teacher), labels[at]
    p, q = theirs.softmax(-1), ours.softmax(-1)
    kl = (p * (p.log() - q.log())).sum(-1)
    values = {
        "agreement": (ours.argmax(-1) == theirs.argmax(-1)).double().mean(),
        "kl": kl.mean(),
        "entropy": -(q * q.log()).sum(-1).mean(),
        "teacher_entropy": -(p * p.log()).sum(-1).mean(),
        "masked_loss": -q.log()[torch.arange(len(own)), own].mean(),
        "masked_top1": (ours.argmax(-1) == own).double().mean(),
    }
    by_band = {f"kl/{name}": kl[bands[own] == number].mean() for number, name in enumerate(BANDS) if (bands[own] == number).any()}
    return {key: float(value) for key, value in (values | by_band).items()}


@pytest.mark.parametrize("positions", ["masked", "all"])
def test_the_numbers_are_those_of_whole_logits_in_float64(positions: str):
    terms = [MaskedLM(), SoftTargets(positions=positions, temperature=4.0)]
    selection = Selection(batch(ROWS + 4), terms)
    student, teacher = outputs(selection, 1), outputs(selection, 2)
    bands = bands_of(torch.arange(VOCABULARY))
    teaching = Teaching(bands)
    teaching.add(student, TeacherOutputs({0: teacher}), selection, terms)
    row, _ = selection.logits
    at = ((selection.labels != IGNORED) & (row < ROWS)).nonzero()[:, 0]
    wanted = expected(student, teacher, selection.labels, at, bands)
    means = Teaching.means(teaching.sums.tolist())
    assert means.keys() == wanted.keys()
    assert means == pytest.approx(wanted, rel=1e-5)


def test_the_rows_are_the_same_however_they_are_split():
    terms = [SoftTargets()]
    whole, parts = Teaching(), [Teaching(), Teaching()]
    selection = Selection(batch(ROWS + 2), terms)
    student, teacher = outputs(selection, 1), outputs(selection, 2)
    whole.add(student, TeacherOutputs({0: teacher}), selection, terms)
    row, _ = selection.logits
    for first, part in ((0, parts[0]), (7, parts[1])):
        own = Selection(batch(7 if first == 0 else ROWS + 2 - 7, first), terms)
        mine = (row >= first) & (row < first + len(own.batch.labels))

        def cut(side: EncoderOutputs, mine: Tensor = mine) -> EncoderOutputs:
            assert side.transformed is not None
            return side._replace(transformed=side.transformed[mine])

        part.add(cut(student), TeacherOutputs({0: cut(teacher)}), own, terms)
    assert Teaching.means((parts[0].sums + parts[1].sums).tolist()) == pytest.approx(Teaching.means(whole.sums.tolist()), rel=1e-6)


def test_without_a_teacher_or_a_masked_token_there_is_no_number():
    assert request_of([MaskedLM()], 1) is None
    terms = [SoftTargets(positions="all")]
    unmasked = batch(2)
    unmasked.labels.fill_(IGNORED)
    selection = Selection(unmasked, terms)
    teaching = Teaching()
    teaching.add(outputs(selection, 1), TeacherOutputs({0: outputs(selection, 2)}), selection, terms)
    assert Teaching.means(teaching.sums.tolist()) == {}


def test_bands_hold_half_and_ninety_percent_of_the_text():
    bands = bands_of(torch.tensor([5, 50, 25, 0, 15, 5]))
    assert bands.tolist() == [2, 0, 1, 2, 1, 2]
    assert bands_of(torch.zeros(3)).tolist() == [0, 0, 0]
