"""The vocabulary head with closed forms against autograd, interleaved, as ratios.

    python tests/benchmarks/bench_head.py [--tokens 1024] [--width 384] [--vocabulary 30522] [--rounds 5]

Soft targets on all tokens and MLM on 15 % of them: forward and backward of the head alone, one thread, seconds of the processor. Each
round runs every path once, and a ratio is the median over rounds. `autograd, 48`: the head before 2026-11-28.
"""

import argparse
import json
import platform
import statistics
import time

import torch

from kd.models.outputs import Decoder, EncoderOutputs
from kd.objective.teacher_outputs import LogitRequest, TeacherOutputs
from kd.objective.vocabulary_head import chunked_terms
from kd.terms.logits import MaskedLM, SoftTargets


class PlainSoftTargets(SoftTargets):
    """Without its closed form."""

    def has_closed_form(self, view):
        return False

    def closed_form(self, view):
        return None


class PlainMaskedLM(MaskedLM):
    """Without its closed form."""

    def has_closed_form(self, view):
        return False

    def closed_form(self, view):
        return None


PATHS = {
    f"{name}, {chunk}": (terms, chunk)
    for name, terms in (("autograd", [PlainSoftTargets(), PlainMaskedLM()]), ("closed form", [SoftTargets(), MaskedLM()]))
    for chunk in (48, 128, 256, 512, 1024)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("tokens", 1024), ("width", 384), ("vocabulary", 30522), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps({"processor": platform.processor() or platform.machine(), "torch": torch.__version__, **vars(options)}))
    for dtype in (torch.float32, torch.bfloat16):
        seconds: dict[str, list[float]] = {name: [] for name in PATHS}
        data = inputs(options, dtype)
        for _ in range(options.rounds):
            for name, (terms, chunk) in PATHS.items():
                began = time.process_time()
                loss, _ = chunked_terms(data["student"], data["teachers"], data["labels"], terms, data["requests"], data["scales"], chunk)
                loss.backward()
                seconds[name].append(time.process_time() - began)
        base = seconds["autograd, 48"]
        ratios = {name: round(statistics.median(b / s for b, s in zip(base, values, strict=True)), 2) for name, values in seconds.items()}
        micros = {name: round(1e6 * statistics.median(values) / options.tokens) for name, values in seconds.items()}
        print(json.dumps({"dtype": str(dtype), "times_faster": ratios, "microseconds_per_token": micros}))


def inputs(options: argparse.Namespace, dtype: torch.dtype) -> dict:
    generator = torch.Generator().manual_seed(1)
    weight, other = (torch.randn(options.vocabulary, options.width, generator=generator).mul_(0.05).to(dtype) for _ in range(2))
    states, theirs = (torch.randn(options.tokens, options.width, generator=generator).to(dtype) for _ in range(2))
    bias = torch.zeros(options.vocabulary, dtype=dtype)
    labels = torch.randint(0, options.vocabulary, (options.tokens,), generator=generator)
    predicted = torch.rand(options.tokens, generator=generator) < 0.15
    decoder = Decoder(other, bias.detach().clone(), options.vocabulary)
    return {
        "student": (states.requires_grad_(), Decoder(weight.requires_grad_(), bias.requires_grad_(), options.vocabulary)),
        "teachers": TeacherOutputs({0: EncoderOutputs(theirs, {}, transformed=theirs, decoder=decoder)}),
        "labels": torch.where(predicted, labels, -100),
        "requests": [LogitRequest(0), None],
        "scales": torch.stack([torch.full((options.tokens,), 1e-3), predicted.float() * 1e-2]),
    }


if __name__ == "__main__":
    main()
