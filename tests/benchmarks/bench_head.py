"""The vocabulary head against plain torch, interleaved, as ratios of CPU seconds on one thread.

    python tests/benchmarks/bench_head.py [--tokens 1024] [--width 384] [--vocabulary 30522] [--rounds 5] [--profile]

Soft targets and MLM, forward and backward of the head alone. Soft targets are on all tokens, or on the masked ones (15 % of 2,048). Each
round runs every way once, and a ratio is the median over rounds.

- chunks of 48: the head before 2026-11-28. Autograd for each chunk, and the weight's gradient summed in fp32
- whole: whole logits and torch's own gradients
- head: `chunked_terms`, also with other chunks and tiles (rows in fp32) than its own

`gemm`: the FLOP/s of its four matrix products over those of one matrix product of 2,048 rows, measured in the same rounds. --profile
prints the time of the head by operation.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

from kd.models.outputs import Decoder, EncoderOutputs
from kd.objective import vocabulary_head
from kd.objective.teacher_outputs import LogitRequest, TeacherOutputs
from kd.objective.vocabulary_head import chunked_terms, whole_terms
from kd.terms.logits import MaskedLM, SoftTargets
from kd.terms.views import LogitView
from launcher.process.machine import processor

TERMS, REQUESTS = [SoftTargets(), MaskedLM()], [LogitRequest(0), None]
OTHERS = ((48, None), (256, None), (1024, None), (None, 4), (None, 64))
OWN_TILE = vocabulary_head.tile_rows


class Case:
    """Inputs of the head. masked: all tokens are predicted, else 15 % of them."""

    def __init__(self, options: argparse.Namespace, dtype: torch.dtype, masked: bool) -> None:
        draw = torch.Generator().manual_seed(1)
        self.tokens = round(2048 * 0.15) if masked else options.tokens
        self.weight, other = (torch.randn(options.vocabulary, options.width, generator=draw).mul_(0.05).to(dtype) for _ in range(2))
        self.states, theirs = (torch.randn(self.tokens, options.width, generator=draw).to(dtype) for _ in range(2))
        self.bias = torch.zeros(options.vocabulary, dtype=dtype)
        self.leaves = [leaf.requires_grad_() for leaf in (self.states, self.weight, self.bias)]
        self.theirs = Decoder(other, self.bias.detach().clone(), options.vocabulary)
        self.teachers = TeacherOutputs({0: EncoderOutputs(theirs, {}, transformed=theirs, decoder=self.theirs)})
        predicted = torch.ones(self.tokens, dtype=torch.bool) if masked else torch.rand(self.tokens, generator=draw) < 0.15
        self.labels = torch.randint(0, options.vocabulary, (self.tokens,), generator=draw).where(predicted, torch.tensor(-100))
        self.scales = torch.stack([torch.full((self.tokens,), 1e-3), predicted.float() * 1e-2])
        self.flops = 8.0 * self.tokens * options.vocabulary * options.width

    def head(self, chunk: int | None = None, tile: int | None = None) -> None:
        vocabulary_head.tile_rows = OWN_TILE if tile is None else lambda *_: tile
        decoder = Decoder(self.weight, self.bias, len(self.weight))
        loss, _ = chunked_terms((self.states, decoder), self.teachers, self.labels, TERMS, REQUESTS, self.scales, chunk)
        torch.autograd.grad(loss, self.leaves)

    def whole(self) -> None:
        loss, _ = whole_terms(F.linear(*self.leaves), self.teachers, self.labels, TERMS, REQUESTS, self.scales)
        torch.autograd.grad(loss, self.leaves)

    @torch.no_grad()
    def chunks_of_48(self) -> None:
        total = torch.zeros(self.weight.shape)
        gradients = torch.empty_like(self.states)
        for start in range(0, self.tokens, 48):
            rows = slice(start, start + 48)
            (taught, _), labels = self.teachers.logits(REQUESTS, rows), self.labels[rows]
            logits = F.linear(self.states[rows], self.weight, self.bias).float().requires_grad_()
            with torch.enable_grad():
                views = [LogitView(logits, taught, labels), LogitView(logits, None, labels)]
                share = sum((term(view) * scale[rows]).sum() for term, view, scale in zip(TERMS, views, self.scales, strict=True))
            (gradient,) = torch.autograd.grad(share, logits)
            gradient = gradient.to(self.weight.dtype)
            torch.mm(gradient, self.weight, out=gradients[rows])
            for first in range(0, len(total), 8192):
                total[first : first + 8192] += gradient[:, first : first + 8192].T @ self.states[rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("tokens", 1024), ("width", 384), ("vocabulary", 30522), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps({"processor": processor(), "torch": torch.__version__, **vars(options)}))
    for dtype, masked in ((dtype, masked) for dtype in (torch.bfloat16, torch.float32) for masked in (False, True)):
        case = Case(options, dtype, masked)
        ways: dict[str, Callable[[], object]] = {"chunks of 48": case.chunks_of_48, "whole": case.whole, "head": case.head}
        ways |= {f"head, chunk {chunk}, tile {tile}": partial(case.head, chunk, tile) for chunk, tile in OTHERS}
        left, right = torch.randn(2048, options.width).to(dtype), torch.randn(4 * options.width, options.width).to(dtype)
        ways["product"] = partial(F.linear, left, right)
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(options.rounds + 1):
            for name, way in ways.items():
                began = time.process_time()
                way()
                if number:
                    seconds[name].append(time.process_time() - began)
        rate = 2.0 * 2048 * 4 * options.width**2 / statistics.median(seconds.pop("product"))
        times = {name: statistics.median(values) for name, values in seconds.items()}
        row = {
            "of": f"{dtype}, {'masked' if masked else 'all'} tokens",
            "times_faster": {name: round(paired(seconds["chunks of 48"], values), 2) for name, values in seconds.items()},
            "over_whole": round(paired(seconds["whole"], seconds["head"]), 2),
            "microseconds_per_token": {name: round(1e6 * value / case.tokens) for name, value in times.items()},
            "gemm": round(case.flops / times["head"] / rate, 3),
        }
        print(json.dumps(row), flush=True)
        if options.profile:
            with profile(activities=[ProfilerActivity.CPU]) as profiled:
                case.head()
            costs = sorted(profiled.key_averages(), key=lambda one: -one.self_cpu_time_total)[:12]
            print(json.dumps({one.key: round(one.self_cpu_time_total / case.tokens, 1) for one in costs}))


def paired(base: list[float], values: list[float]) -> float:
    """The median over rounds of base / value."""
    return statistics.median(b / v for b, v in zip(base, values, strict=True))


if __name__ == "__main__":
    main()
