"""The terms' formulas once more, in plain Python floats (IEEE float64), written from the papers and sharing nothing with kd.

`python tests/golden/terms.py` prints tests/golden/terms.json: inputs and expected values of every term.
"""

import json
import math
import random


def softmax(logits: list[float], temperature: float) -> list[float]:
    largest = max(logits)
    powers = [math.exp((x - largest) / temperature) for x in logits]
    return [p / sum(powers) for p in powers]


def soft_targets(student: list[float], teacher: list[float], temperature: float) -> float:
    """Hinton et al. 2015: T^2 KL(teacher || student), summed over the vocabulary."""
    p, q = softmax(teacher, temperature), softmax(student, temperature)
    return temperature**2 * sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))


def mlm(student: list[float], label: int) -> float:
    """Devlin et al. 2018: minus the log-probability of the true token."""
    return -math.log(softmax(student, 1.0)[label])


def cosine(student: list[float], teacher: list[float]) -> float:
    """Sanh et al. 2019: 1 - cos."""
    dot = sum(a * b for a, b in zip(student, teacher, strict=True))
    return 1.0 - dot / math.sqrt(sum(a * a for a in student) * sum(b * b for b in teacher))


def main() -> None:
    draw = random.Random(20191001)
    student = [[draw.gauss(0, 2) for _ in range(11)] for _ in range(5)]
    teacher = [[draw.gauss(0, 2) for _ in range(11)] for _ in range(5)]
    labels = [3, -100, 0, 10, -100]
    golden = {
        "student": student,
        "teacher": teacher,
        "labels": labels,
        "soft_targets": {str(t): [soft_targets(s, q, t) for s, q in zip(student, teacher, strict=True)] for t in (0.5, 1.0, 2.0, 20.0)},
        "mlm": [0.0 if label < 0 else mlm(s, label) for s, label in zip(student, labels, strict=True)],
        "cosine": [cosine(s, q) for s, q in zip(student, teacher, strict=True)],
    }
    print(json.dumps(golden, indent=1))


if __name__ == "__main__":
    main()
