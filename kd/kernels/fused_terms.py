"""Values and gradients of the logit terms in one kernel per row of logits, for NVIDIA GPUs (kd.kernels.triton_terms).

It reads logits in the weights' dtype two or three times and writes their gradient once, in their place. It needs no tensor [n, V] in fp32.
Triton is imported where the kernel is needed. `problem` says whether this process can rely on it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

from stillhouse.errors import one_line

DIVERGENCES = ("none", "forward", "reverse", "symmetric", "jensen_shannon")
"""By their numbers in the kernel."""
BLOCK, WARPS = 2048, 16
"""Columns at a time, and warps of a row. A guess without a GPU: no register is spilled, and a multiprocessor has two rows."""
ALIGNED = 16
"""Columns. A row of logits takes a multiple of them, so that a thread reads four columns at a time."""
ROWS, VOCABULARY, SPREAD = 6, 5003, 3.0
"""Of the comparison with the plain formulas."""
LARGEST_ERROR = 1e-4
"""Of a value or gradient, and of the largest one. The exponential of a GPU is exact to about 1e-6."""


@dataclass(frozen=True)
class Form:
    """The terms of one kernel. divergence: of soft targets, or none. labels: soft targets read the label too (alpha is not 0)."""

    divergence: str = "none"
    labels: bool = False
    mlm: bool = False
    mse: bool = False

    @property
    def names(self) -> list[str]:
        """The terms, in the order of scales and values."""
        present = {"soft_targets": self.divergence != "none", "mlm": self.mlm, "logit_mse": self.mse}
        return [name for name, there in present.items() if there]

    @property
    def reads_teacher(self) -> bool:
        """True if the kernel needs a teacher's logits."""
        return self.divergence != "none" or self.mse


@dataclass(frozen=True)
class Logits:
    """Products [n, W] without bias, contiguous, and bias [W], both in the weight's dtype. What follows column V is padding."""

    products: Tensor
    bias: Tensor


def width(vocabulary: int) -> int:
    """W: columns of a row in memory."""
    return -(-vocabulary // ALIGNED) * ALIGNED


def run(
    form: Form,
    student: Logits,
    teacher: Logits | None,
    vocabulary: int,
    labels: Tensor,
    scales: Sequence[Tensor],
    temperature: float = 1.0,
    alpha: float = 0.0,
) -> Tensor:
    """The terms' values [K, n] fp32, 0 where the scale is 0. The student's products become the gradient of sum(scales x values).

    labels: [n] int64; -100: none. scales: [n] fp32 of each of form.names. Padding of the gradient is 0.
    """
    count, columns = student.products.shape
    assert student.products.is_contiguous()
    assert teacher is None or (teacher.products.is_contiguous() and teacher.products.shape == student.products.shape)
    other = student if teacher is None else teacher
    values = torch.empty(len(form.names), count, device=student.products.device)
    if count == 0:
        return values
    used = dict(zip(form.names, zip(scales, values, strict=True), strict=True))
    soft, mlm, mse = (used.get(name, (values[0], values[0])) for name in ("soft_targets", "mlm", "logit_mse"))
    import_module("kd.kernels.triton_terms").rows[(count,)](
        student.products,
        other.products,
        student.bias,
        other.bias,
        labels,
        soft[0],
        mlm[0],
        mse[0],
        soft[1],
        mlm[1],
        mse[1],
        vocabulary,
        columns,
        temperature,
        1 / temperature,
        alpha,
        DIVERGENCE=DIVERGENCES.index(form.divergence),
        LABELS=form.labels or form.mlm,
        MLM=form.mlm,
        MSE=form.mse,
        BLOCK=BLOCK,
        num_warps=WARPS,
    )
    return values


DEVICES = ("cuda",)
"""Types of devices that the kernel is for."""
_FORCED: list[bool] = []


@contextmanager
def forced(choice: bool) -> Iterator[None]:
    """The kernel everywhere, or nowhere, meanwhile. For tests and comparisons: Triton's interpreter runs it on CPUs."""
    _FORCED.append(choice)
    try:
        yield
    finally:
        _FORCED.pop()


def possible(device: torch.device) -> bool:
    """True on an NVIDIA GPU. It does not ask for Triton."""
    return _FORCED[-1] if _FORCED else device.type in DEVICES and torch.version.hip is None


def problem(form: Form, student: torch.dtype, teacher: torch.dtype, device: torch.device) -> str | None:
    """The reason in words, one line, for which this process cannot rely on the kernel; None: it can. dtypes: of the weights.

    The first question for a form compiles the kernel and compares it with the plain formulas, for which the host waits.
    """
    return None if _FORCED and _FORCED[-1] else _problem(form, student, teacher, device.type)


@cache
def _problem(form: Form, student: torch.dtype, teacher: torch.dtype, device: str) -> str | None:
    if find_spec("triton") is None:
        return "Triton is not installed"
    try:
        error = largest_error(form, student, teacher, device)
    except Exception as failure:  # of a compiler, a driver, a missing header: each has its own class
        return f"the kernel did not run: {type(failure).__name__}: {one_line(failure)[:160]}"
    return None if error <= LARGEST_ERROR else f"the kernel differs from the plain formulas by {error:.1g}"


@torch.enable_grad()  # a new form may be met within an autograd function
def largest_error(form: Form, student: torch.dtype, teacher: torch.dtype, device: str) -> float:
    """The kernel's largest error on a few random rows, of the largest value or gradient. The rounding of the gradient to its dtype is none.

    Compared with float64 and torch's own gradients, on this type of device. No random state of the process changes.
    """
    draw, temperature, alpha = torch.Generator().manual_seed(0), 2.0, 0.3 if form.labels else 0.0
    columns, sides = width(VOCABULARY), []
    for dtype in (student, teacher):
        products, bias = (torch.randn(*shape, generator=draw) * SPREAD for shape in ((ROWS, columns), (columns,)))
        sides.append(Logits(products.to(device, dtype), bias.to(device, dtype)))
    labels = torch.tensor([5, -100, VOCABULARY - 1, 0, -100, 7], device=device)
    sizes = torch.tensor([[0.02 if name == "logit_mse" else 1.0] for name in form.names])  # no term's gradient hides another's
    scales = (torch.rand(len(form.names), ROWS, generator=draw).where(torch.arange(ROWS) != 3, 0.0) * sizes).to(device)
    own, other = ((one.products.double() + one.bias.double())[:, :VOCABULARY] for one in sides)
    exact, slopes = _plain(form, own.requires_grad_(), other, labels, scales.double(), temperature, alpha)
    values = run(form, sides[0], sides[1] if form.reads_teacher else None, VOCABULARY, labels, list(scales), temperature, alpha)
    gradient = sides[0].products[:, :VOCABULARY].double()
    rounding = torch.finfo(student).eps * slopes.abs()
    errors = [
        ((values - exact).abs().amax(1) / exact.abs().amax(1)).max(),
        ((gradient - slopes).abs() - rounding).max() / slopes.abs().max(),
    ]
    return max(float("inf") if error.isnan() else float(error) for error in errors)


def _plain(
    form: Form, student: Tensor, teacher: Tensor, labels: Tensor, scales: Tensor, temperature: float, alpha: float
) -> tuple[Tensor, Tensor]:
    """(values [K, n], gradient [n, V]) of the terms' formulas in float64."""
    cross_entropy = F.cross_entropy(student, labels, reduction="none", ignore_index=-100)
    q, p = (F.log_softmax(logits / temperature, -1) for logits in (student, teacher))
    middle = torch.logaddexp(q, p) - torch.tensor(2.0, dtype=torch.float64).log()
    pairs = {"forward": [(p, q)], "reverse": [(q, p)], "symmetric": [(p, q), (q, p)], "jensen_shannon": [(p, middle), (q, middle)]}
    divergences = [(one.exp() * (one - two)).sum(-1) for one, two in pairs.get(form.divergence, ())]
    values = {"mlm": cross_entropy, "logit_mse": 0.5 * (student - teacher).square().sum(-1)}
    if divergences:
        soft = sum(divergences[1:], start=divergences[0]) / len(divergences)
        values["soft_targets"] = alpha * cross_entropy + (1 - alpha) * temperature**2 * soft
    chosen = torch.stack([values[name] for name in form.names]).where(scales > 0, 0.0)
    (gradient,) = torch.autograd.grad((chosen * scales).sum(), student)
    return chosen.detach(), gradient
