"""The cause of an update that is not finite."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from kd.distributed import process_group
from kd.objective.objective import Objective
from kd.objective.selection import Selection
from kd.teacher.teachers import Teachers


def cause_of(
    teachers: Teachers, update: int, selections: Sequence[Selection], objective: Objective, vocabulary: int, means: Mapping[str, float]
) -> str:
    """The cause: a teacher, a term, or the gradient alone. means: of the terms. Collective; runs the teachers of `update` again."""
    device = process_group.device()
    broken = torch.zeros(2 * max(1, len(teachers.members)), dtype=torch.float64, device=device)
    for selection in selections:
        with teachers.teach(update, selection, objective, vocabulary) as teacher_outputs:
            for number, outputs in teacher_outputs.outputs.items():
                head = (None, None) if outputs.decoder is None else (outputs.decoder.weight, outputs.decoder.bias)
                broken[2 * number] += _broken(outputs.last_hidden, outputs.transformed, *outputs.states.values())
                broken[2 * number + 1] += _broken(*head)
    found = [index for index, count in enumerate(process_group.sum_over_ranks(broken).tolist()) if count]
    if found:
        guilty = teachers.present(update)[found[0] // 2]
        which = "the teacher's" if len(teachers.members) == 1 else f"teacher {list(teachers.members).index(guilty)}'s"
        return f"{which} {'head' if found[0] % 2 else 'hidden states'} not finite"
    wrong = [name for name, mean in means.items() if not math.isfinite(mean)]
    return f"loss of {', '.join(wrong)} not finite" if wrong else "gradient not finite"


def _broken(*tensors: Tensor | None) -> bool:
    return not all(torch.isfinite(tensor).all() for tensor in tensors if tensor is not None)
