"""Rates of the operations of an update, each measured alone: matrix products, attention, elementwise work, the chunked head, AdamW."""

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd.models.attention.document_attention import attend
from kd.models.outputs import Decoder, EncoderOutputs
from kd.objective.teacher_outputs import LogitRequest, TeacherOutputs
from kd.objective.vocabulary_head import chunked_terms
from kd.terms.base import LogitTerm
from kd.terms.logits import MaskedLM, SoftTargets
from launcher.planning.cost.operations import BACKWARD_VALUES, FORWARD_VALUES
from launcher.planning.devices.gemm import DTYPES, product, wait

TOKENS = 2048
VOCABULARY = 30522
REPETITIONS, ENOUGH_SECONDS = 3, 0.2
STEP_WEIGHTS = 8_000_000


def clock_of(where: torch.device) -> Callable[[], float]:
    """CPU time on one thread, wall time otherwise."""
    return time.process_time if where.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter


def typical(action: Callable[[], object], where: torch.device) -> float:
    """Seconds of the median repetition: CPU time on one thread, wall time otherwise.

    Not the fastest: in a run, too, other processes use the caches and the memory.
    """
    clock = clock_of(where)
    action()
    taken: list[float] = []
    for number in range(4 * REPETITIONS):
        if number >= REPETITIONS and sum(taken) > ENOUGH_SECONDS:
            break
        wait(where)
        started = clock()
        action()
        wait(where)
        taken.append(clock() - started)
    return max(statistics.median(taken), 1e-9)


def gemm_rate(precision: str, width: int, where: torch.device) -> float:
    """TFLOP/s of [TOKENS, width] x [width, 4 width]."""
    return 8.0 * TOKENS * width * width / typical(product(precision, TOKENS, width, 4 * width, where), where) / 1e12


def copy_rate(where: torch.device, count: int = 1 << 26) -> float:
    """GB/s of a copy in memory, read and written bytes together."""
    source = torch.zeros(count // 4, device=where)
    target = torch.empty_like(source)
    return 2.0 * count / typical(lambda: target.copy_(source), where) / 1e9


def attention_costs(precision: str, kernel: str, window: int, where: torch.device) -> tuple[float, float, float, float]:
    """Nanoseconds per score: (forward, forward per value of a head, backward, backward per value of a head)."""
    narrow, wide = (_attention_seconds(precision, kernel, window, size, where) for size in (32, 64))
    result = []
    for small, large in zip(narrow, wide, strict=True):
        slope = max(0.0, (large - small) / 32)
        result += [max(0.0, large - 64 * slope), slope]
    return result[0], result[1], result[2], result[3]


def _attention_seconds(precision: str, kernel: str, window: int, size: int, where: torch.device) -> tuple[float, float]:
    """Nanoseconds per score of a forward and of a backward pass."""
    rows, heads = max(1, TOKENS // window), 8
    shape = (rows, window, heads, size)
    dtype = DTYPES[precision]
    query, key, value = (torch.randn(shape, device=where).to(dtype).transpose(1, 2).requires_grad_() for _ in range(3))
    allowed = torch.ones(rows, 1, window, window, dtype=torch.bool, device=where)
    documents = torch.ones(rows, window, dtype=torch.int64, device=where)
    mask = torch.zeros(rows, 1, window, window, dtype=dtype, device=where)

    def forward() -> Tensor:
        if kernel == "documents":
            return attend(query, key, value, documents, size**-0.5)
        if kernel == "sdpa":
            return F.scaled_dot_product_attention(query, key, value, attn_mask=allowed).transpose(1, 2).contiguous()
        scores = torch.matmul(query, key.transpose(2, 3)) * size**-0.5 + mask
        return torch.matmul(F.softmax(scores, dim=-1), value).transpose(1, 2).contiguous()

    with torch.no_grad():
        ahead = typical(forward, where)
    output = forward()
    gradient = torch.randn_like(output)
    back = typical(lambda: torch.autograd.grad(output, (query, key, value), gradient, retain_graph=True), where)
    scores = rows * heads * window * window
    return 1e9 * ahead / scores, 1e9 * back / scores


def elementwise_rates(precision: str, where: torch.device, width: int = 512) -> tuple[float, float]:
    """GB/s of a layer's GELU, sums and LayerNorms: (forward, backward), by the bytes that the planner counts."""
    dtype = DTYPES[precision]
    states = torch.randn(TOKENS, width, device=where).to(dtype).requires_grad_()
    inner = torch.randn(TOKENS, 4 * width, device=where).to(dtype).requires_grad_()
    norms = [nn.LayerNorm(width).to(where, dtype) for _ in range(2)]

    def forward() -> tuple[Tensor, Tensor]:
        once = norms[0](states + states)
        return norms[1](once + states), F.gelu(inner)

    with torch.no_grad():
        ahead = typical(forward, where)
    outputs = forward()
    gradients = [torch.randn_like(output) for output in outputs]
    back = typical(lambda: torch.autograd.grad(outputs, (states, inner), gradients, retain_graph=True), where)
    moved, moved_back = (
        TOKENS * width * (by_width + 4 * by_inner) * dtype.itemsize for by_width, by_inner in (FORWARD_VALUES, BACKWARD_VALUES)
    )
    return moved / ahead / 1e9, moved_back / back / 1e9


def head_costs(precision: str, where: torch.device) -> tuple[float, float, float]:
    """The chunked head with soft targets and mlm: (ns per logit, TFLOP/s of its products, ns per weight of the decoder)."""
    few, many, wide = (head_seconds(precision, tokens, width, where) for tokens, width in ((96, 256), (480, 256), (480, 768)))
    # seconds = tokens V per_logit + 8 tokens V D / rate + V D per_weight
    matrix = torch.tensor([[n * VOCABULARY, 8.0 * n * VOCABULARY * d, VOCABULARY * d] for n, d in ((96, 256), (480, 256), (480, 768))])
    per_logit, per_flop, per_weight = torch.linalg.solve(matrix.double(), torch.tensor([few, many, wide]).double()).tolist()
    if min(per_logit, per_flop, per_weight) <= 0:  # other processes disturbed one of them: products alone
        return 0.0, 8.0 * 480 * VOCABULARY * 768 / wide / 1e12, 0.0
    return 1e9 * per_logit, 1e-12 / per_flop, 1e9 * per_weight


def head_seconds(precision: str, tokens: int, width: int, where: torch.device) -> float:
    dtype = DTYPES[precision]
    weights = [torch.randn(VOCABULARY, width, device=where).mul_(0.02).to(dtype) for _ in range(2)]
    bias = torch.zeros(VOCABULARY, device=where, dtype=dtype)
    states = [torch.randn(tokens, width, device=where).to(dtype) for _ in range(2)]
    taught = EncoderOutputs(states[1], {}, states[1], Decoder(weights[1], bias, VOCABULARY))
    labels = torch.where(torch.arange(tokens, device=where) % 7 == 0, 5, -100)
    terms: list[LogitTerm] = [SoftTargets(), MaskedLM()]
    scales = torch.stack([torch.full((tokens,), 0.01, device=where), (labels >= 0).float() * 0.01])
    own = weights[0].requires_grad_()

    def both() -> None:
        given = states[0].detach().requires_grad_()
        decoder = Decoder(own, bias, VOCABULARY)
        loss, _ = chunked_terms((given, decoder), TeacherOutputs({0: taught}), labels, terms, [LogitRequest(0), None], scales, None)
        torch.autograd.grad(loss, (given, own))

    return typical(both, where)


def optimizer_cost(where: torch.device) -> float:
    """Nanoseconds per weight of gradients copied into flat buffers, their norm, and a fused AdamW step."""
    weight = torch.randn(STEP_WEIGHTS, device=where).requires_grad_()
    weight.grad = torch.randn_like(weight)
    flat, other = torch.empty_like(weight), torch.empty_like(weight)
    adam = torch.optim.AdamW([weight], lr=1e-9, fused=True)

    def step() -> None:
        assert weight.grad is not None
        flat.copy_(weight.grad)
        other.copy_(flat)
        weight.grad.mul_(1.0 / max(1.0, float(flat.norm())))
        adam.step()
        other.copy_(weight.detach())

    return 1e9 * typical(step, where) / STEP_WEIGHTS
