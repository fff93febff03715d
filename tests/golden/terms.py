"""The terms' formulas once more, in plain Python floats (IEEE float64), written from the papers and sharing nothing with kd.

`python tests/golden/terms.py` prints tests/golden/terms.json: inputs and expected values of every term.
"""

import json
import math
import random
from collections.abc import Callable

Vector = list[float]


def softmax(logits: list[float], temperature: float) -> list[float]:
    largest = max(logits)
    powers = [math.exp((x - largest) / temperature) for x in logits]
    return [p / sum(powers) for p in powers]


def soft_targets(student: list[float], teacher: list[float], temperature: float) -> float:
    """Hinton et al. 2015: T^2 KL(teacher || student), summed over the vocabulary."""
    p, q = softmax(teacher, temperature), softmax(student, temperature)
    return temperature**2 * sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))


def kl(p: Vector, q: Vector) -> float:
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True) if a > 0)


def divergence(student: Vector, teacher: Vector, temperature: float, kind: str, top_k: int | None = None) -> float:
    """T^2 x a divergence of softened distributions; top_k: the teacher's first tokens, and all others as one outcome."""
    p, q = softmax(teacher, temperature), softmax(student, temperature)
    if top_k is not None:
        first = sorted(range(len(p)), key=lambda i: -p[i])[:top_k]
        p, q = ([x[i] for i in first] + [sum(x[i] for i in range(len(x)) if i not in first)] for x in (p, q))
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    values = {
        "forward": kl(p, q),
        "reverse": kl(q, p),
        "symmetric": (kl(p, q) + kl(q, p)) / 2,
        "jensen_shannon": (kl(p, middle) + kl(q, middle)) / 2,
    }
    return temperature**2 * values[kind]


def with_labels(student: Vector, teacher: Vector, label: int, temperature: float, alpha: float) -> float:
    """Hinton et al. 2015: alpha x cross-entropy at temperature 1 + (1 - alpha) x T^2 KL."""
    return alpha * mlm(student, label) + (1 - alpha) * soft_targets(student, teacher, temperature)


def mlm(student: list[float], label: int) -> float:
    """Devlin et al. 2018: minus the log-probability of the true token."""
    return -math.log(softmax(student, 1.0)[label])


def cosine(student: list[float], teacher: list[float]) -> float:
    """Sanh et al. 2019: 1 - cos."""
    dot = sum(a * b for a, b in zip(student, teacher, strict=True))
    return 1.0 - dot / math.sqrt(sum(a * a for a in student) * sum(b * b for b in teacher))


def half_squares(student: Vector, teacher: Vector) -> float:
    """Ba, Caruana 2014, equation 1 (logits); Romero et al. 2015, equation 3 (hints): half the squared distance."""
    return sum((a - b) ** 2 for a, b in zip(student, teacher, strict=True)) / 2


def mean_square(student: Vector, teacher: Vector) -> float:
    """Jiao et al. 2020, equations 8 and 9."""
    return sum((a - b) ** 2 for a, b in zip(student, teacher, strict=True)) / len(student)


def patient(student: Vector, teacher: Vector) -> float:
    """Sun et al. 2019, equation 7: squared distance of the two vectors scaled to length 1."""
    one, other = (math.sqrt(sum(x * x for x in v)) for v in (student, teacher))
    return sum((a / one - b / other) ** 2 for a, b in zip(student, teacher, strict=True))


def scores(left: list[Vector], right: list[Vector], query: int, members: list[int], heads: int, head: int) -> Vector:
    """Of one position, to each member of its document: product of the head's slices by the root of the slice's width."""
    d = len(left[0]) // heads
    part = slice(head * d, (head + 1) * d)
    return [sum(a * b for a, b in zip(left[query][part], right[j][part], strict=True)) / math.sqrt(d) for j in members]


def maps(student: dict, teachers: list[dict], left: str, right: str, heads: int, segments: list[list[int]], of: str) -> list[Vector]:
    """One number a position (0 for padding): the mean over heads of KL or mean squared difference, within the position's document."""
    result = []
    for row, numbers in enumerate(segments):
        values = []
        for query, number in enumerate(numbers):
            members = [j for j, other in enumerate(numbers) if other == number]
            total = 0.0
            for head in range(heads if number else 0):
                own = scores(student[left][row], student[right][row], query, members, heads, head)
                theirs = [scores(t[left][row], t[right][row], query, members, heads, head) for t in teachers]
                if of == "scores":
                    target = [sum(column) / len(theirs) for column in zip(*theirs, strict=True)]
                    total += mean_square(own, target)
                else:
                    target = [sum(column) / len(theirs) for column in zip(*(softmax(t, 1.0) for t in theirs), strict=True)]
                    total += kl(target, softmax(own, 1.0)) if of == "kl" else mean_square(softmax(own, 1.0), target)
            values.append(total / heads)
        result.append(values)
    return result


def distance(a: Vector, b: Vector) -> float:
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


def dot(a: Vector, b: Vector) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def huber(a: float, b: float) -> float:
    return 0.5 * (a - b) ** 2 if abs(a - b) <= 1 else abs(a - b) - 0.5


def similarity(student: list[Vector], teacher: list[Vector]) -> Vector:
    """Tung, Mori 2019, equations 1-4, row i of the sum."""
    sides = []
    for states in (student, teacher):
        gram = [[dot(a, b) for b in states] for a in states]
        sides.append([[x / math.sqrt(dot(row, row)) for x in row] for row in gram])
    return [sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) / len(student) for x, y in zip(*sides, strict=True)]


def rkd_distance(student: list[Vector], teacher: list[Vector]) -> Vector:
    """Park et al. 2019, section 3.2.1: huber loss of distances by their mean, each example's mean over its partners."""
    n = len(student)
    sides = []
    for states in (student, teacher):
        mean = sum(distance(states[i], states[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
        sides.append([[distance(a, b) / mean for b in states] for a in states])
    return [sum(huber(sides[0][i][j], sides[1][i][j]) for j in range(n) if j != i) / (n - 1) for i in range(n)]


def rkd_angle(student: list[Vector], teacher: list[Vector]) -> Vector:
    """Park et al. 2019, section 3.2.2: huber loss of cosines of the angle at j, its mean over ordered pairs of partners."""

    def cos(states: list[Vector], i: int, j: int, k: int) -> float:
        a, b = ([x - y for x, y in zip(states[m], states[j], strict=True)] for m in (i, k))
        return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))

    n = len(student)
    result = []
    for j in range(n):
        pairs = [(i, k) for i in range(n) for k in range(n) if len({i, j, k}) == 3]
        result.append(sum(huber(cos(student, i, j, k), cos(teacher, i, j, k)) for i, k in pairs) / len(pairs))
    return result


def contrastive(student: list[Vector], teacher: list[Vector], temperature: float) -> Vector:
    """van den Oord et al. 2018, equation 4, on cosines."""
    cosines = [[1.0 - cosine(s, t) for t in teacher] for s in student]
    return [-math.log(softmax(row, temperature)[i]) for i, row in enumerate(cosines)]


DOCUMENTS: dict[str, Callable[..., Vector]] = {"similarity": similarity, "rkd_distance": rkd_distance, "rkd_angle": rkd_angle}
SEGMENTS = [[1, 1, 1, 2, 2, 0], [1, 1, 2, 3, 3, 3]]
WIDTH, HEADS = 8, 2


def on_layers(draw: random.Random) -> dict:
    """Queries, keys, values [2, 6, 8] of a student layer and two teacher layers, and what the terms on maps make of them."""

    def layer() -> dict[str, list[list[Vector]]]:
        return {
            part: [[[draw.gauss(0, 1) for _ in range(WIDTH)] for _ in row] for row in SEGMENTS] for part in ("queries", "keys", "values")
        }

    student, teachers = layer(), [layer(), layer()]
    golden: dict = {"segments": SEGMENTS, "student": student, "teachers": teachers}
    for of in ("kl", "scores", "distributions"):
        golden[of] = maps(student, teachers[:1], "queries", "keys", HEADS, SEGMENTS, of)
        golden[f"{of} of a mean"] = maps(student, teachers, "queries", "keys", HEADS, SEGMENTS, of)
    for letters, (left, right) in {"qq": ("queries",) * 2, "vv": ("values",) * 2, "kv": ("keys", "values")}.items():
        golden[letters] = maps(student, teachers[:1], left, right, 4, SEGMENTS, "kl")
    return golden


def on_documents(draw: random.Random) -> dict:
    """States [5, 4] of a student's and [5, 6] of a teacher's documents; contrastive compares the first four numbers of each."""
    student = [[draw.gauss(0, 1) for _ in range(4)] for _ in range(5)]
    teacher = [[draw.gauss(0, 1) for _ in range(6)] for _ in range(5)]
    golden: dict = {"student": student, "teacher": teacher}
    golden |= {name: formula(student, teacher) for name, formula in DOCUMENTS.items()}
    golden["contrastive"] = contrastive(student, [t[:4] for t in teacher], 0.5)
    return golden


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
    for kind in ("forward", "reverse", "symmetric", "jensen_shannon"):
        for name, top_k in ((kind, None), (f"{kind} top 3", 3)):
            golden[name] = {
                str(t): [divergence(s, q, t, kind, top_k) for s, q in zip(student, teacher, strict=True)] for t in (0.5, 2.0, 20.0)
            }
    golden["alpha"] = [0.0 if y < 0 else with_labels(s, q, y, 2.0, 0.3) for s, q, y in zip(student, teacher, labels, strict=True)]
    for name, formula in {"half_squares": half_squares, "mean_square": mean_square, "pkd": patient}.items():
        golden[name] = [formula(s, q) for s, q in zip(student, teacher, strict=True)]
    golden["layers"] = on_layers(draw)
    golden["documents"] = on_documents(draw)
    print(json.dumps(golden, indent=1))


if __name__ == "__main__":
    main()
