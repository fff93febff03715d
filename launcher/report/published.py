"""Figures that papers publish for students of BERT-base, with their source. They are shown apart from measured figures.

Scores are percent as in the named table. A table of GLUE's test set and one of its development set cannot be compared with each other.

| row | table | metrics |
| --- | --- | --- |
| DistilBERT | table 1 of arXiv:1910.01108, dev; medians of 5 runs | as the paper names them: one number a task |
| TinyBERT-4 | table 1 of arXiv:1909.10351 (EMNLP Findings), test | F1 for QQP and MRPC, Spearman for STS-B, MNLI matched |
| MiniLM-L6-H384 | "Fine-tuning on NLU tasks" of unilm/minilm/README.md, dev | accuracy for QQP; MNLI matched; STS-B is not there |
| MobileBERT | table 4 of arXiv:2004.02984, test; with operational optimizations | F1 for QQP and MRPC, Spearman for STS-B, MNLI matched |

The MiniLM row was compared with the README itself, the others with transcriptions of the papers' tables.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A student and its teacher in one table of a paper. scores: task -> (student, teacher)."""

    model: str
    parameters: int
    teacher: str
    teacher_parameters: int
    split: str
    source: str
    url: str
    scores: dict[str, tuple[float, float]]

    def retained(self, task: str) -> float:
        student, teacher = self.scores[task]
        return student / teacher


PUBLISHED = (
    Published(
        "DistilBERT",
        66_000_000,
        "BERT-base",
        110_000_000,
        "development set",
        "Sanh et al. 2019, table 1",
        "arXiv:1910.01108",
        {
            "CoLA": (51.3, 56.3),
            "MNLI": (82.2, 86.7),
            "MRPC": (87.5, 88.6),
            "QNLI": (89.2, 91.8),
            "QQP": (88.5, 89.6),
            "RTE": (59.9, 69.3),
            "SST-2": (91.3, 92.7),
            "STS-B": (86.9, 89.0),
        },
    ),
    Published(
        "TinyBERT-4",
        14_500_000,
        "BERT-base",
        109_000_000,
        "test set",
        "Jiao et al. 2020, table 1",
        "arXiv:1909.10351",
        {
            "CoLA": (44.1, 52.8),
            "MNLI": (82.5, 83.9),
            "MRPC": (86.4, 87.5),
            "QNLI": (87.7, 90.9),
            "QQP": (71.3, 71.1),
            "RTE": (66.6, 67.0),
            "SST-2": (92.6, 93.4),
            "STS-B": (80.4, 85.2),
        },
    ),
    Published(
        "MiniLM-L6-H384",
        22_000_000,
        "BERT-base (its teacher is another model of that size)",
        109_000_000,
        "development set",
        "Wang et al. 2020, README of the released models",
        "github.com/microsoft/unilm/tree/master/minilm",
        {
            "CoLA": (47.5, 58.9),
            "MNLI": (83.3, 84.5),
            "MRPC": (88.9, 87.3),
            "QNLI": (90.5, 91.7),
            "QQP": (90.6, 91.3),
            "RTE": (68.8, 68.6),
            "SST-2": (91.5, 93.2),
        },
    ),
    Published(
        "MobileBERT",
        25_300_000,
        "BERT-base (its teacher is a BERT-large with bottlenecks)",
        109_000_000,
        "test set",
        "Sun et al. 2020, table 4",
        "arXiv:2004.02984",
        {
            "CoLA": (50.5, 52.1),
            "MNLI": (83.3, 84.6),
            "MRPC": (88.8, 88.9),
            "QNLI": (90.6, 90.5),
            "QQP": (70.2, 71.2),
            "RTE": (66.2, 66.4),
            "SST-2": (92.8, 93.5),
            "STS-B": (84.4, 85.8),
        },
    ),
)
PUBLISHED_TASKS = ("CoLA", "MNLI", "MRPC", "QNLI", "QQP", "RTE", "SST-2", "STS-B")
