"""Held-out scores of students as they are made, before any training: every way to make them smaller, for several shapes.

Usage: bench_students.py --teacher MODEL --shards FOLDER [--shapes 3x384/12/1536 …] [--methods …] [--sample-tokens N]

A shape is layers x width / heads / inner. Layers are every other one, the architecture is the teacher's, the sample is the first windows of
the train split's order; scores are of the held-out split, which no method sees.
"""

import argparse
import time

import torch

from data_shards.stream.settings import StreamSettings
from data_shards.stream.stream import Stream
from kd.evaluation.mlm import evaluate_mlm
from kd.models.loading import load_mlm
from kd.student.settings import StudentSettings
from kd.student.student import make_student
from launcher.training.batches import heldout_batches, sample_batches

SHAPES = ("6x312/12/1200", "6x192/6/768", "4x312/12/1200", "3x384/12/1536")
METHODS = ("random", "magnitude", "activation", "projection")


def main() -> None:
    """Print one line a student."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--shards", required=True)
    parser.add_argument("--shapes", nargs="+", default=SHAPES)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--sample-tokens", type=int, default=StudentSettings().sample_tokens)
    parser.add_argument("--windows", type=int, default=96, help="held-out windows")
    options = parser.parse_args()
    torch.set_num_threads(1)
    stream = StreamSettings()
    sample = sample_batches(Stream(options.shards, "train", stream, 16), options.sample_tokens)
    heldout = list(heldout_batches(Stream(options.shards, "heldout", stream, 1), 32, options.windows))
    teacher = load_mlm(options.teacher)
    scores = evaluate_mlm(teacher, heldout)
    print(f"{'teacher':<30} loss {scores['loss']:6.3f}  top-1 {scores['top1']:5.1%}", flush=True)
    for shape in options.shapes:
        layers, _, rest = shape.partition("x")
        width, heads, inner = map(int, rest.split("/"))
        for method in options.methods:
            settings = StudentSettings(count=int(layers), architecture="same", width=width, heads=heads, inner=inner, shrink=method)
            started = time.process_time()
            student = make_student(settings, teacher, 1, sample)
            seconds = time.process_time() - started
            scores = evaluate_mlm(student, heldout, teacher)
            line = f"loss {scores['loss']:6.3f}  top-1 {scores['top1']:5.1%}  KL {scores['kl']:5.3f}  agrees {scores['agreement']:5.1%}"
            print(f"{shape + ' ' + method:<30} {line}  {seconds:5.0f} s of one core", flush=True)


if __name__ == "__main__":
    main()
