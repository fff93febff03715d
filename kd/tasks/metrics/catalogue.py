"""Every metric as one row: its name, its range, its functions, and the tasks that it is official for.

Settings, tables, reports and documentation read these rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from kd.errors import KdError
from kd.tasks.metrics import classification, multi_label, regression, tagging
from kd.tasks.metrics import question_answering as squad
from kd.tasks.metrics.resampling import Weighted
from kd.tasks.metrics.statistics import CONFIDENCE, RESAMPLES, Interval, PairedDifference, bootstrap, paired_bootstrap

Kind = Literal["classification", "regression", "multi_label", "tagging", "question_answering"]


@dataclass(frozen=True)
class Metric:
    """One metric. Predictions and labels have the form of the task's kind; the module of that kind describes it.

    key: its name among the metrics of `kind`.
    low, high: its range.
    better: whether a higher or a lower value is better.
    value: predictions, labels -> the metric.
    weighted: the same on resamples of the examples.
    """

    key: str
    title: str
    kind: Kind
    value: Callable[[Any, Any], float]
    weighted: Callable[[Any, Any], Weighted]
    low: float = 0.0
    high: float = 1.0
    better: Literal["higher", "lower"] = "higher"

    def constant(self, labels: Any, train_labels: Any = None) -> float:
        """The metric of the constant predictor: majority class, mean, no entity, no answer. train_labels decide which, where given."""
        constant = constant_predictions(self.kind, labels, train_labels)
        return float(self.weighted(constant, labels)(np.ones((1, len(labels))))[0])

    def interval(
        self, predictions: Any, labels: Any, resamples: int = RESAMPLES, confidence: float = CONFIDENCE, seed: int = 0
    ) -> Interval:
        """The metric with its bootstrap interval."""
        return bootstrap(self.weighted(predictions, labels), len(labels), resamples, confidence, seed)

    def difference(
        self, ours: Any, theirs: Any, labels: Any, resamples: int = RESAMPLES, confidence: float = CONFIDENCE, seed: int = 0
    ) -> PairedDifference:
        """Our predictions' metric minus theirs on the same examples."""
        pair = self.weighted(ours, labels), self.weighted(theirs, labels)
        return paired_bootstrap(*pair, len(labels), resamples, confidence, seed)


METRICS = (
    Metric("accuracy", "accuracy", "classification", classification.accuracy, classification.weighted_accuracy),
    Metric("f1", "F1 of class 1", "classification", classification.f1, classification.weighted_f1),
    Metric("f1_macro", "macro F1", "classification", classification.f1_macro, classification.weighted_f1_macro),
    Metric("f1_micro", "micro F1", "classification", classification.f1_micro, classification.weighted_accuracy),
    Metric("matthews", "Matthews correlation", "classification", classification.matthews, classification.weighted_matthews, low=-1.0),
    Metric("pearson", "Pearson correlation", "regression", regression.pearson, regression.weighted_pearson, low=-1.0),
    Metric("spearman", "Spearman correlation", "regression", regression.spearman, regression.weighted_spearman, low=-1.0),
    Metric("f1_micro", "micro F1", "multi_label", multi_label.f1_micro, multi_label.weighted_f1_micro),
    Metric("f1_macro", "macro F1", "multi_label", multi_label.f1_macro, multi_label.weighted_f1_macro),
    Metric("subset_accuracy", "subset accuracy", "multi_label", multi_label.subset_accuracy, multi_label.weighted_subset_accuracy),
    Metric("entity_f1", "entity F1", "tagging", tagging.entity_f1, tagging.weighted_entity_f1),
    Metric("exact_match", "exact match", "question_answering", squad.mean_exact_match, squad.weighted_exact_match),
    Metric("f1", "F1 of words", "question_answering", squad.mean_f1, squad.weighted_f1),
)

OFFICIAL: dict[str, tuple[str, ...]] = {
    "glue/cola": ("matthews",),
    "glue/sst2": ("accuracy",),
    "glue/mrpc": ("f1", "accuracy"),
    "glue/qqp": ("f1", "accuracy"),
    "glue/stsb": ("pearson", "spearman"),
    "glue/mnli": ("accuracy",),
    "glue/mnli-mismatched": ("accuracy",),
    "glue/qnli": ("accuracy",),
    "glue/rte": ("accuracy",),
    "glue/wnli": ("accuracy",),
    "imdb": ("accuracy",),
    "squad": ("f1", "exact_match"),
    "squad_v2": ("f1", "exact_match"),
    "conll2003": ("entity_f1",),
}
"""Published task -> keys of its official metrics. The first decides where one number is needed."""
DEFAULT: dict[Kind, tuple[str, ...]] = {
    "classification": ("accuracy", "f1_macro"),
    "regression": ("pearson", "spearman"),
    "multi_label": ("f1_micro", "f1_macro", "subset_accuracy"),
    "tagging": ("entity_f1",),
    "question_answering": ("f1", "exact_match"),
}
"""Kind -> keys of the metrics of a task without official ones."""


def metric(kind: Kind, key: str) -> Metric:
    """The metric of that name for tasks of that kind."""
    rows = {row.key: row for row in METRICS if row.kind == kind}
    if key not in rows:
        raise KdError(f"metric {key}: expected one of {', '.join(rows)} for {kind}, got {key!r}; correct the name")
    return rows[key]


def metrics_of(kind: Kind, task: str | None = None) -> tuple[Metric, ...]:
    """The official metrics of a published task, or those of its kind for any other task."""
    return tuple(metric(kind, key) for key in OFFICIAL.get(task or "", DEFAULT[kind]))


def constant_predictions(kind: Kind, labels: Any, train_labels: Any = None) -> Any:
    """The best prediction that ignores the input, once per example of `labels`, in the form of that kind.

    Majority class, mean number, each label's majority, no entity, no answer. It is chosen on train_labels, or on `labels` without them.
    """
    seen: Any = labels if train_labels is None else train_labels
    if kind == "classification":
        classes, counts = np.unique(np.asarray(seen), return_counts=True)
        return np.full(len(labels), classes[counts.argmax()])
    if kind == "regression":
        return np.full(len(labels), np.mean(seen, dtype=np.float64))
    if kind == "multi_label":
        return np.tile(np.asarray(seen, dtype=np.float64).mean(axis=0) > 0.5, (len(labels), 1))
    if kind == "tagging":
        sentences: Sequence[Sequence[str]] = labels
        return [["O"] * len(tags) for tags in sentences]
    return [""] * len(labels)
