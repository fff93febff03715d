"""Learned maps from a student's width to its teachers', for terms that compare hidden states. They are no part of the student."""

import torch
from torch import nn

from kd.objective.objective import Objective


def make_projections(objective: Objective, seed: int) -> nn.ModuleDict:
    """One linear map W s + b for each of the objective's `projections`, fp32; deterministic in seed and in its name.

    For equal widths they start as the identity, so a student equal to its teacher has nothing to learn. Others start orthogonal, which
    keeps a state's length and angles as far as widths allow.
    """
    modules = nn.ModuleDict()
    for number, (name, width) in enumerate(objective.projections.items()):
        assert objective.student is not None
        linear = nn.utils.skip_init(nn.Linear, objective.student.width, width)
        with torch.no_grad():
            linear.bias.zero_()
            if linear.in_features == linear.out_features:
                nn.init.eye_(linear.weight)
            else:
                nn.init.orthogonal_(linear.weight, generator=torch.Generator().manual_seed(seed * 1009 + number))
        modules[name] = linear
    return modules
