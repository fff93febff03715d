"""Memory and time of each term by itself, against what its docstring promises.

    python tests/benchmarks/bench_terms.py [--rows 4] [--positions 512] [--width 768] [--heads 12] [--vocabulary 30522]
                                           [--chunk 512] [--tile 512]

For each term: outputs of the size of a 12-layer teacher and a 6-layer student as plain tensors, one forward and backward of the term, in a
process of its own. `kept`: bytes of the states that the term asks for, of both models; for a term on logits, what goes into both heads and
both decoders. `grads`: gradients of the student's. `peak`: what the process grew by beyond `kept` (`grads` are among it). `whole`: one
[B, heads, S, S] in fp32; for a term on logits one chunk x V. `copies`: tensors of a tile x V in fp32, which is what is left of the peak
without `grads` and one chunk of each model. CPU; MiB and milliseconds.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time

import psutil
import torch
from pydantic import TypeAdapter

from kd.batch import Batch
from kd.models.outputs import Decoder, EncoderOutputs
from kd.models.states import EncoderShape
from kd.objective import products, vocabulary_head
from kd.objective.objective import Objective
from kd.objective.projections import make_projections
from kd.objective.teacher_outputs import TeacherOutputs
from kd.terms import Term

TERMS = [
    {"kind": "mlm"},
    {"kind": "logit_mse"},
    {"kind": "soft_targets"},
    {"kind": "soft_targets", "divergence": "reverse"},
    {"kind": "soft_targets", "divergence": "symmetric"},
    {"kind": "soft_targets", "divergence": "jensen_shannon"},
    {"kind": "soft_targets", "positions": "masked", "alpha": 0.3},
    {"kind": "soft_targets", "top_k": 64},
    {"kind": "soft_targets", "top_k": 64, "divergence": "jensen_shannon"},
    {"kind": "cosine"},
    {"kind": "hidden_mse"},
    {"kind": "embedding_mse"},
    {"kind": "hints", "layer_map": [{"student": 2, "teacher": 5}]},
    {"kind": "pkd"},
    {"kind": "attention_kl"},
    {"kind": "attention_kl", "layer_map": "final"},
    {"kind": "attention_mse"},
    {"kind": "relations"},
    {"kind": "relations", "heads": 48},
    {"kind": "similarity"},
    {"kind": "rkd_distance"},
    {"kind": "rkd_angle"},
    {"kind": "contrastive"},
]
MIB = 2**20
SIZES = {"rows": 4, "positions": 512, "width": 768, "heads": 12, "vocabulary": 30522, "chunk": 512, "tile": 512}


def batch_of(rows: int, positions: int) -> Batch:
    """Four documents a row, every token predicted."""
    segments = (1 + torch.arange(positions) * 4 // positions).expand(rows, positions).contiguous()
    ids = torch.zeros(rows, positions, dtype=torch.int64)
    return Batch(ids, ids, ids, segments, torch.arange(rows))


class Peak(threading.Thread):
    """The process's largest resident size while inside, sampled every two milliseconds."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.process, self.ended = psutil.Process(), threading.Event()
        self.bytes = 0

    def run(self) -> None:
        while not self.ended.wait(0.002):
            self.bytes = max(self.bytes, self.process.memory_info().rss)


def measure(values: dict, rows: int, positions: int, width: int, heads: int, vocabulary: int, chunk: int, tile: int) -> dict[str, float]:
    torch.set_num_threads(1)
    vocabulary_head.tile_rows = lambda *_: tile
    student, teacher = EncoderShape(6, width, heads), EncoderShape(12, width, heads)
    objective = Objective(TypeAdapter(list[Term]).validate_python([values]), chunk).for_encoders(student, teacher)
    projections = dict(make_projections(objective, 1))
    batch = batch_of(rows, positions)

    def drawn(states: frozenset, gradient: bool) -> dict:
        return {state: torch.randn(rows, positions, width).requires_grad_(gradient) for state in states}

    def head(gradient: bool) -> tuple:
        """What enters a decoder, and the decoder."""
        return tuple(torch.randn(size).requires_grad_(gradient) for size in ((rows, positions, width), (vocabulary, width), (vocabulary,)))

    def outputs(states: dict, parts: tuple, rows: slice) -> EncoderOutputs:
        cut = {state: tensor[rows] for state, tensor in states.items()}
        if not parts:
            return EncoderOutputs(last, cut)
        return EncoderOutputs(last, cut, parts[0][rows].flatten(0, 1), Decoder(*parts[1:], vocabulary))

    def once(batch: Batch, rows: slice = slice(None)) -> None:
        teachers = TeacherOutputs({0: outputs(theirs, taught_head, rows)} if needs_logits or theirs else {})
        selection = objective.select(batch)
        loss, _ = objective(outputs(ours, own_head, rows), teachers, selection, objective.counts(selection), projections)
        loss.backward()

    last = torch.zeros(rows, positions, 1)
    needs_logits = "logits" in objective.needs
    own_head, taught_head = head(True) if objective.on_logits else (), head(False) if needs_logits else ()
    ours, theirs = drawn(objective.student_states, True), drawn(objective.teacher_states(0), False)
    kept = sum(tensor.numel() * 4 for tensor in (*ours.values(), *theirs.values(), *own_head, *taught_head))
    gradients = sum(tensor.numel() * 4 for tensor in (*ours.values(), *own_head))
    once(batch_of(1, positions), slice(0, 1))  # libraries and threads are there
    for tensor in (*ours.values(), *own_head):
        tensor.grad = None
    products._KEPT.clear()  # kept for the next micro-batch, which is not measured
    peak = Peak()
    before = peak.process.memory_info().rss
    peak.start()
    started = time.perf_counter()
    once(batch)
    took = time.perf_counter() - started
    peak.ended.set()
    peak.join()
    grown = max(0, peak.bytes - before)
    whole = 4 * chunk * vocabulary if own_head else 4 * rows * (values.get("heads") or heads) * positions**2
    models = 2 if needs_logits else 1
    return {
        "kept": kept / MIB,
        "gradients": gradients / MIB,
        "peak": grown / MIB,
        "whole": whole / MIB,
        "copies": (grown - gradients - models * whole) / (4 * tile * vocabulary) if own_head else float("nan"),
        "milliseconds": 1000 * took,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--one", default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    sizes = {name: getattr(given, name) for name in SIZES}
    if given.one is not None:
        print(json.dumps(measure(json.loads(given.one), **sizes)))
        return
    print(f"{'term':58} {'kept':>7} {'grads':>7} {'peak':>7} {'whole':>7} {'ms':>7} {'copies':>7}")
    for values in TERMS:
        command = [sys.executable, __file__, "--one", json.dumps(values), *(f"--{name}={value}" for name, value in sizes.items())]
        # freed memory goes back at once, so that a peak is a peak
        environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)
        name = " ".join(str(value) if key == "kind" else f"{key}={value}" for key, value in values.items())
        columns = (found[key] for key in ("kept", "gradients", "peak", "whole", "milliseconds"))
        print(f"{name[:58]:58} " + " ".join(f"{value:7.0f}" for value in columns) + f" {found['copies']:7.1f}", flush=True)


if __name__ == "__main__":
    main()
