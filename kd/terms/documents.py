"""Terms on relations between examples: documents (kd.terms.pooling), pooled, compared within groups of rows of one micro-batch.

Each returns one number a document, its share as the anchor. The divisor is the number of documents with enough partners, over the whole
update. A comparison needs both documents in one micro-batch of one rank, so these terms depend on both. With group_rows (a divisor of
micro_batch) the micro-batch does not matter. With group_rows: 1 the number of ranks does not matter either.

Memory: hidden states B x S x D of the layers in use. For M documents a micro-batch, also M x M (distances, similarities) or blocks of
M x D (angles).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from kd.terms.base import DocumentTerm
from kd.terms.views import DocumentView
from stillhouse.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as F
    from torch import Tensor
    from torch.utils import checkpoint
else:
    torch, F, checkpoint = lazy_module("torch"), lazy_module("torch.nn.functional"), lazy_module("torch.utils.checkpoint")

ANGLE_BLOCK_BYTES = 8 << 20


class Similarity(DocumentTerm):
    """Anchor i's share of ||G_teacher - G_student||^2 / b^2: sum over j of (…)^2, divided by b.

    G is the rows of A A^T scaled to length 1. A [b, D] is the documents' states. Widths are free.
    Similarity-preserving distillation (Tung, Mori 2019, arXiv:1907.09682, equations 1-4).
    """

    any_width: ClassVar[bool] = True
    kind: Literal["similarity"] = "similarity"

    @property
    def formula(self) -> str:
        return r"\sum_{(i,j)} \tfrac{1}{b} \lVert G^t_j - G^s_i \rVert^2"

    def __call__(self, view: DocumentView) -> Tensor:
        """pairs [M, D] -> [M] fp32."""
        together = view.together
        total = torch.zeros(len(view.group), device=view.group.device)
        for student, teacher in view.pairs:
            own, target = (F.normalize((a @ a.T).masked_fill(~together, 0.0), dim=-1) for a in (student, teacher))
            total = total + (target - own).square().sum(-1) / together.sum(-1)
        return total


class RelationalDistance(DocumentTerm):
    """Anchor i's mean over its partners j of huber(psi(t_i, t_j) - psi(s_i, s_j)), psi the distance, by the mean distance of the group.

    RKD-D (Park et al. 2019, arXiv:1904.05068, section 3.2.1; Huber's delta is 1). Widths are free.
    """

    any_width: ClassVar[bool] = True
    kind: Literal["rkd_distance"] = "rkd_distance"

    @property
    def formula(self) -> str:
        return r"\sum_{(i,j)} \mathrm{mean}_m \, \mathrm{huber}(\psi(h^t, h^t_m) - \psi(h^s, h^s_m))"

    def __call__(self, view: DocumentView) -> Tensor:
        """pairs [M, D] -> [M] fp32."""
        others = view.together & ~torch.eye(len(view.group), dtype=torch.bool, device=view.group.device)
        total = torch.zeros(len(view.group), device=view.group.device)
        for student, teacher in view.pairs:
            own, target = (_relative_distances(a, view.together, others) for a in (student, teacher))
            losses = F.huber_loss(own, target, reduction="none").masked_fill(~others, 0.0)
            total = total + losses.sum(-1) / others.sum(-1).clamp(min=1)
        return total


class RelationalAngle(DocumentTerm):
    """Anchor j's mean over pairs i, k of its partners of huber(cos angle(t_i, t_j, t_k) - cos angle(s_i, s_j, s_k)), the angle at j.

    RKD-A (Park et al. 2019, arXiv:1904.05068, section 3.2.2; Huber's delta is 1). Widths are free. Needs three documents in a group.
    """

    any_width: ClassVar[bool] = True
    partners: ClassVar[int] = 2
    kind: Literal["rkd_angle"] = "rkd_angle"

    @property
    def formula(self) -> str:
        teacher, student = (rf"\cos\angle(h^{e}_{{m}}, h^{e}, h^{e}_{{n}})" for e in ("t", "s"))
        return rf"\sum_{{(i,j)}} \mathrm{{mean}}_{{m,n}} \, \mathrm{{huber}}({teacher} - {student})"

    def __call__(self, view: DocumentView) -> Tensor:
        """pairs [M, D] -> [M] fp32."""
        # zeros that depend on the student: its weights get a gradient on every rank, also where no group has three documents
        values = sum((student[:, :0].float().sum(-1) for student, _ in view.pairs), start=torch.zeros(1, device=view.group.device))
        for members in view.members:
            if len(members) <= self.partners:
                continue
            for student, teacher in view.pairs:
                size = max(1, ANGLE_BLOCK_BYTES // (4 * len(members) * max(student.shape[1], teacher.shape[1])))
                blocks = [
                    checkpoint.checkpoint(
                        _angles, student[members], teacher[members], anchors, use_reentrant=False, preserve_rng_state=False
                    )
                    for anchors in torch.arange(len(members), device=members.device).split(size)
                ]
                values = values.index_add(0, members, torch.cat(blocks))
        return values


class Contrastive(DocumentTerm):
    """-log softmax over the group's documents j of (s_i . t_j / temperature) at j = i, nats.

    It is small if the student's state of a text is nearest to the teacher's state of that text. States are scaled to length 1.
    InfoNCE (van den Oord et al. 2018, arXiv:1807.03748, equation 4) between student and teacher. Contrastive representation distillation
    (Tian et al. 2020, arXiv:1910.10699, section 3) does the same; here the negatives come from the batch instead of a memory.
    Not zero where student equals teacher: then it measures the spread of the group.
    """

    kind: Literal["contrastive"] = "contrastive"
    temperature: Annotated[float, Field(gt=0)] = 0.07

    @property
    def formula(self) -> str:
        return rf"\sum_{{(i,j)}} -\log \sigma_m(\cos({self.projected}, h^t_m) / {self.temperature:g})_{{\mathrm{{same\ text}}}}"

    def __call__(self, view: DocumentView) -> Tensor:
        """pairs [M, D] -> [M] fp32."""
        labels = torch.arange(len(view.group), device=view.group.device)
        total = torch.zeros(len(view.group), device=view.group.device)
        for student, teacher in view.pairs:
            logits = F.normalize(student, dim=-1) @ F.normalize(teacher, dim=-1).T / self.temperature
            logits = logits.masked_fill(~view.together, torch.finfo(torch.float32).min)
            total = total + F.cross_entropy(logits, labels, reduction="none")
        return total


def _relative_distances(states: Tensor, together: Tensor, others: Tensor) -> Tensor:
    """[M, M] fp32: Euclidean distances by the mean distance of each row's group (0 across groups)."""
    distances = torch.cdist(states, states, compute_mode="donot_use_mm_for_euclid_dist").masked_fill(~others, 0.0)
    of_group = (together.float() @ distances.sum(-1, keepdim=True)) / (together.float() @ others.sum(-1, keepdim=True).float()).clamp(min=1)
    return distances / of_group.clamp(min=1e-12)


def _angles(student: Tensor, teacher: Tensor, anchors: Tensor) -> Tensor:
    """[n, D] of one group, a few anchors of it -> [anchors] fp32."""
    count = len(student)
    own, target = (_cosines(states, anchors) for states in (student, teacher))
    numbers = torch.arange(count, device=anchors.device)
    different = (numbers[:, None] != numbers[None, :]).expand(len(anchors), count, count)
    away = numbers[None, :] != anchors[:, None]
    counts = different & away[:, :, None] & away[:, None, :]
    losses = F.huber_loss(own, target, reduction="none").masked_fill(~counts, 0.0)
    return losses.sum((-1, -2)) / counts.sum((-1, -2))


def _cosines(states: Tensor, anchors: Tensor) -> Tensor:
    """[n, D] -> [anchors, n, n]: cosine of the angle at each anchor between the ways to any two others."""
    ways = F.normalize(states[None, :, :] - states[anchors][:, None, :], dim=-1)
    return ways @ ways.mT
