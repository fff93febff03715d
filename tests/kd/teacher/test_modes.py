"""The modes of a teacher: one list, from which the settings, the commands and the plan are read."""

import argparse
from typing import get_args

import pytest
import torch

from kd.models.encoder import Encoder
from kd.models.loading import untrained
from kd.teacher.modes import MODES
from kd.teacher.settings import TeacherSettings
from launcher.commands.parser import parser


def test_the_choices_of_settings_and_commands_are_the_modes():
    assert get_args(TeacherSettings.model_fields["mode"].annotation) == tuple(MODES) == ("replicated", "zero3", "tensor_parallel", "cached")
    verbs = next(action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    (mode,) = [action for action in verbs.choices["cache"]._actions if action.dest == "mode"]
    assert mode.choices == ("replicated", "zero3", "tensor_parallel")


@pytest.mark.parametrize(
    ("mode", "ranks", "expected"),
    [
        # of 120 x 32 words, 40 x 32 positions, 2 x 32 types and a 32 x 32 head: 6208 in matrices; 4 layers of 4 (32 x 32) and 2 (32 x 64)
        ("replicated", 2, 6208 + 4 * 8192 + 4 * 352 + 280),
        ("zero3", 2, (6208 + 4 * 8192) // 2 + 4 * 352 + 280),
        ("tensor_parallel", 2, 6208 + 4 * 8192 // 2 + 4 * 352 + 280),
        ("cached", 2, 6208 + 280),
        ("zero3", 1, 6208 + 4 * 8192 + 4 * 352 + 280),
    ],
)
def test_a_rank_keeps_so_many_weights(make_model, mode, ranks, expected):
    """Biases and norms: 4 of 32, 1 of 64 and 2 norms of 64 a layer; outside: norms of embeddings and head, the head's bias, 120 of V."""
    with torch.device("meta"):
        encoder: Encoder = untrained(make_model("bert").config)
    assert MODES[mode].elements_per_rank(encoder, ranks) == expected
