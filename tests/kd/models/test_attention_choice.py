"""`train.attention: auto` follows the measured figures: device, precision, window, dropout, and who multiplies fp32 matrices."""

import pytest

from kd.models.attention.attention_choice import of_student, of_teacher, of_version_0


@pytest.mark.parametrize(
    ("precision", "window", "drops", "onednn", "kernel"),
    [
        ("fp32", 128, False, True, "documents"),
        ("fp32", 128, False, False, "sdpa"),
        ("fp32", 256, False, False, "sdpa"),
        ("fp32", 257, False, False, "documents"),
        ("fp32", 128, True, False, "documents"),
        ("bf16", 256, False, True, "eager"),
        ("bf16", 257, False, False, "documents"),
        ("bf16", 128, True, False, "documents"),
    ],
)
def test_a_student_on_a_cpu(precision, window, drops, onednn, kernel):
    assert of_student("cpu", precision, window, drops, onednn).kernel == kernel
    assert of_student("cuda", precision, window, drops, onednn).kernel == "sdpa"
    if not drops:
        assert of_teacher("cpu", precision, window, onednn) == kernel


@pytest.mark.parametrize(
    ("precision", "window", "onednn", "kernel"),
    [("fp32", 128, True, "eager"), ("fp32", 128, False, "sdpa"), ("bf16", 128, False, "eager"), ("bf16", 512, False, "sdpa")],
)
def test_a_family_without_attention_by_document(precision, window, onednn, kernel):
    assert of_student("cpu", precision, window, True, onednn, ("sdpa", "eager")).kernel == kernel


def test_the_rule_of_earlier_checkpoints_stays():
    known = {("fp32", 128): "sdpa", ("bf16", 256): "eager", ("bf16", 257): "sdpa"}
    assert {key: of_version_0("cpu", *key) for key in known} == known
    assert of_version_0("cuda", "bf16", 128) == "sdpa"
