"""What each choice of a teacher's layers predicts before any training: held-out loss of every subset of a size, as JSON lines.

    python tests/benchmarks/layer_subsets.py TEACHER SHARDS --layers 3

Figures from it stand in docs/comparisons.md.
"""

import argparse
import itertools
import json

from data_shards.storage.manifest import Manifest
from data_shards.stream.settings import StreamSettings
from data_shards.stream.stream import Stream
from kd.evaluation.mlm import evaluate_mlm
from kd.models.loading import load_mlm
from kd.student.settings import StudentSettings
from kd.student.student import make_student
from launcher.training.batches import heldout_batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher")
    parser.add_argument("shards")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--windows", type=int, default=64)
    arguments = parser.parse_args()
    teacher = load_mlm(arguments.teacher)
    vocabulary = Manifest.load(arguments.shards).vocabulary_size
    batches = list(heldout_batches(Stream(arguments.shards, "heldout", StreamSettings(window_tokens=128), 1), 32, arguments.windows))
    print(json.dumps({"layers": "all", "loss": evaluate_mlm(teacher, batches, vocabulary=vocabulary).loss}), flush=True)
    for layers in itertools.combinations(range(teacher.layers), arguments.layers):
        student = make_student(StudentSettings(layers=list(layers), dropout=0.0), teacher, 1)
        print(json.dumps({"layers": layers, "loss": evaluate_mlm(student, batches, vocabulary=vocabulary).loss}), flush=True)


if __name__ == "__main__":
    main()
