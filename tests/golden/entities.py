"""Entity scores of random tags by seqeval 1.2.2. To write them again: `python tests/golden/entities.py > tests/golden/entities.json`."""

import json
import random

from seqeval.metrics import classification_report, f1_score, precision_score, recall_score

PREFIXES = {"bio": "BI", "iob1": "IIIB", "iobes": "BIES"}


def sentence(generator: random.Random, prefixes: str, length: int) -> list[str]:
    """Random tags, valid or not."""
    return ["O" if generator.random() < 0.4 else f"{generator.choice(prefixes)}-{generator.choice(['PER', 'LOC'])}" for _ in range(length)]


def main() -> None:
    cases = []
    for name, prefixes in PREFIXES.items():
        generator = random.Random(name)
        gold = [sentence(generator, prefixes, length) for length in range(1, 25)]
        predicted = [[tag if generator.random() < 0.8 else sentence(generator, prefixes, 1)[0] for tag in tags] for tags in gold]
        report = classification_report(gold, predicted, output_dict=True, zero_division=0)
        cases.append(
            {
                "name": name,
                "gold": gold,
                "predicted": predicted,
                "scores": [float(score(gold, predicted)) for score in (precision_score, recall_score, f1_score)],
                "f1_by_type": {kind: float(report[kind]["f1-score"]) for kind in ("LOC", "PER")},
            }
        )
    print(json.dumps(cases))


if __name__ == "__main__":
    main()
