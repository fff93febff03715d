"""The precision that `train.precision: auto` stands for on this machine, with the reason.

A GPU and a processor with tiles for bf16 (AMX) take bf16. A processor without any bf16 instruction takes fp32. Between them are processors
with bf16 dot products (avx512_bf16, arm_bf16): some multiply bf16 three times as fast as fp32, others slower. There both are timed.
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F

from kd.distributed import process_group

TILES, DOT_PRODUCTS = "amx_bf16", ("avx512_bf16", "arm_bf16")
WORTH_IT = 1.25
"""bf16 has to be faster by this factor: its fp32 masters and its rounding cost something too."""
ROWS, WIDTH, ROUNDS = 512, 256, 5


@dataclass(frozen=True)
class Choice:
    """A precision (fp32 or bf16) and the reason for it, in words."""

    precision: str
    reason: str


@cache
def on_this_machine() -> Choice:
    """The choice for this rank's device. It is made once in a process, so that a plan and its run have the same."""
    device = process_group.device()
    if device.type == "cuda":
        # DeepSpeed's own question also says yes to GPUs that only emulate bf16
        return _of_gpu(torch.cuda.get_device_name(device), torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return _of_gpu(device.type, process_group.native_bf16())
    there = frozenset(name for name in (TILES, *DOT_PRODUCTS) if torch.cpu.get_capabilities().get(name))
    return of_processor(allowed(there, os.environ), measured_gain)


def _of_gpu(name: str, multiplies: bool) -> Choice:
    return Choice("bf16", f"{name} multiplies bf16") if multiplies else Choice("fp32", f"{name} does not multiply bf16")


def of_processor(features: frozenset[str], gain: Callable[[], float]) -> Choice:
    """The choice for a processor with these instruction sets. gain: measures how many times as fast bf16 is as fp32."""
    if TILES in features:
        return Choice("bf16", f"the processor has {TILES}")
    dots = next((name for name in DOT_PRODUCTS if name in features), None)
    if dots is None:
        return Choice("fp32", f"the processor has none of {TILES}, {', '.join(DOT_PRODUCTS)}")
    factor = gain()
    reason = f"the processor has {dots} and no {TILES}; measured, bf16 is {factor:.2g} times as fast as fp32"
    return Choice("bf16" if factor >= WORTH_IT else "fp32", f"{reason}, {WORTH_IT} are needed")


def allowed(features: frozenset[str], environment: Mapping[str, str]) -> frozenset[str]:
    """The instruction sets that oneDNN may use: ONEDNN_MAX_CPU_ISA, if set, switches the later ones off."""
    most = environment.get("ONEDNN_MAX_CPU_ISA") or environment.get("DNNL_MAX_CPU_ISA") or "DEFAULT"
    if most.upper() in ("DEFAULT", "ALL") or "AMX" in most.upper():
        return features
    if most.upper().endswith(("_BF16", "_FP16")):
        return features - {TILES}
    return features - {TILES, "avx512_bf16"}


def choose_gpu_products(precision: str, tf32: bool, device: torch.device) -> str | None:
    """Set how this process's GPU multiplies fp32 matrices from now on: "tf32" or "ieee". None: the device is no GPU, nothing is set.

    TF32 rounds both matrices to 10 bits of mantissa and adds in fp32. GPUs before Ampere have no TF32, and go on in fp32.
    """
    if device.type != "cuda":
        return None
    rounds = precision == "fp32" and tf32
    torch.set_float32_matmul_precision("high" if rounds else "highest")  # not the newer fp32_precision: torch.compile still asks this one
    return "tf32" if rounds else "ieee"


def measured_gain() -> float:
    """CPU time of a feed-forward block in fp32 over that in bf16, forward and backward, in turns. It takes less than a second."""
    blocks = [_block(dtype) for dtype in (torch.float32, torch.bfloat16)]
    least = [float("inf")] * len(blocks)
    for block in blocks:
        block()
    for _ in range(ROUNDS):
        for place, block in enumerate(blocks):
            started = time.process_time()
            block()
            least[place] = min(least[place], time.process_time() - started)
    return least[0] / max(least[1], 1e-9)


def _block(dtype: torch.dtype) -> Callable[[], None]:
    """The block as a call. Its values come from a generator of its own: no random state of a run changes."""
    drawn = torch.Generator().manual_seed(0)
    shapes = (ROWS, WIDTH), (4 * WIDTH, WIDTH), (WIDTH, 4 * WIDTH)
    states, up, down = [(0.05 * torch.randn(*shape, generator=drawn)).to(dtype).requires_grad_() for shape in shapes]

    def run() -> None:
        out = F.layer_norm(F.linear(F.gelu(F.linear(states, up)), down) + states, (WIDTH,))
        out.backward(out.detach())

    return run
