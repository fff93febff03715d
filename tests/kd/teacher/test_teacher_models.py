"""A teacher that is read once in fp32 is, after `take`, bit for bit the one that is read in its own precision."""

import pytest
import torch

from kd.models.loading import load_mlm
from kd.teacher import teachers
from kd.teacher.teachers import TeacherModels

FAMILIES = (
    *("bert", "distilbert", "roberta", "xlm-roberta", "camembert", "electra", "mpnet", "albert", "deberta-v2", "deberta-v3"),
    *("deberta of its own keys", "deberta with positions", "modernbert", "modernbert with biases"),
)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_teacher_cast_after_reading_equals_one_read_in_bf16(make_model, saved, tiny_batch, family):
    folder = saved(make_model(family))
    models = TeacherModels([folder])
    models.whole(0)
    cast, read = models.take(0, torch.bfloat16), load_mlm(folder, dtype=torch.bfloat16)
    for kind in ("named_parameters", "named_buffers"):
        own, expected = dict(getattr(cast.hf, kind)()), dict(getattr(read.hf, kind)())
        assert own.keys() == expected.keys()
        for name, value in expected.items():
            assert own[name].dtype == value.dtype, name
            assert torch.equal(own[name], value), name
    assert cast.tied == read.tied
    assert not cast.training
    with torch.no_grad():
        assert torch.equal(cast.logits(cast(tiny_batch).last_hidden), read.logits(read(tiny_batch).last_hidden))


def test_a_teacher_is_read_once_and_in_its_own_precision_where_nothing_else_needs_it(make_model, saved, monkeypatch):
    folders = [saved(make_model("bert", seed=seed)) for seed in (1, 2)]
    reads: list[tuple[str, torch.dtype]] = []

    def counted(path: str, dtype: torch.dtype = torch.float32) -> object:
        reads.append((path, dtype))
        return load_mlm(path, dtype)

    monkeypatch.setattr(teachers, "load_mlm", counted)
    models = TeacherModels(folders)
    models.whole(0)
    models.whole(0)
    for number in range(2):
        models.take(number, torch.bfloat16)
    assert reads == [(folders[0], torch.float32), (folders[1], torch.bfloat16)]
