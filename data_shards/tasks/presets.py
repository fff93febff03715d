"""Presets of published tasks: files, columns, label names in the official order, and the names of the official metrics.

A preset is a dictionary of task settings. With a folder it reads the official files, without one the hub's columns.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CONLL_TAGS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC")
ENTAILMENT = ("entailment", "not_entailment")
SENTENCES = {"text": "sentence1", "text_pair": "sentence2", "label": "label"}


@dataclass(frozen=True)
class Preset:
    """A published task.

    metrics: names of the official metrics, the headline first.
    files: split -> names of files or folders in the official folder. There is one entry for each release that has other names.
    official: settings of the official files.
    hub: settings of the hub's version.
    both: settings of either.
    test_columns: columns, by name, of official test files that have a header where the other files have none.
    """

    kind: str
    metrics: tuple[str, ...]
    files: tuple[dict[str, tuple[str, ...]], ...]
    hub_name: str
    hub_splits: dict[str, str]
    official: dict[str, Any]
    hub: dict[str, Any]
    both: dict[str, Any] = field(default_factory=dict)
    test_columns: dict[str, str] = field(default_factory=dict)

    def settings(self, folder: str | None) -> dict[str, Any]:
        """The settings that the preset gives, for the official files of a folder or, without one, for the hub."""
        if folder is None:
            hub = {split: f"hub:{self.hub_name}:{name}" for split, name in self.hub_splits.items()}
            return {"kind": self.kind, **self.both, **self.hub, **hub}
        files = {split: [f"{folder.rstrip('/')}/{name}" for name in names] for split, names in self.names(folder).items()}
        return {"kind": self.kind, **self.both, **self.official, **files}

    def names(self, folder: str) -> dict[str, tuple[str, ...]]:
        """Split -> names of the files of the release that is in the folder. Of test and unlabelled, those that are there."""
        root = Path(folder).expanduser()

        def there(names: tuple[str, ...]) -> bool:
            return all((root / name).exists() for name in names)

        release = next((one for one in self.files if there(one["train"]) and there(one.get("dev", ()))), self.files[0])
        return {split: names for split, names in release.items() if split in ("train", "dev") or there(names) or not root.is_dir()}


def _glue(
    name: str, metrics: tuple[str, ...], labels: tuple[str, ...], official: dict[str, Any], hub: dict[str, Any], **more: Any
) -> Preset:
    """A GLUE task. Its files have tabs between the fields, and quotes are text."""
    dev, test_columns = more.pop("dev", "dev.tsv"), more.pop("test_columns", {})
    kind = "classification" if labels else "regression"
    names = {"labels": list(labels), "label_names": {str(index): label for index, label in enumerate(labels)}} if labels else {}
    official = {"format": "tsv", "quoting": "none", **official}
    return Preset(
        kind,
        metrics,
        ({"train": ("train.tsv",), "dev": (dev,)},),
        f"nyu-mll/glue/{name}",
        {"train": "train", "dev": more.pop("hub_dev", "validation")},
        official,
        {"columns": hub},
        {**names, "max_length": 128, **more},
        test_columns,
    )


def _mnli(side: str) -> Preset:
    official = {"columns": {**SENTENCES, "label": "gold_label"}}
    hub = {"text": "premise", "text_pair": "hypothesis", "label": "label"}
    labels = ("entailment", "neutral", "contradiction")
    return _glue("mnli", ("accuracy",), labels, official, hub, dev=f"dev_{side}.tsv", hub_dev=f"validation_{side}")


def _squad(version: str, name: str) -> Preset:
    """SQuAD. The hub's rows and the official JSON give the same examples."""
    columns = {"id": "id", "question": "question", "context": "context", "answers": "answers"}
    return Preset(
        "question_answering",
        ("f1", "exact_match"),
        ({"train": (f"train-{version}.json",), "dev": (f"dev-{version}.json",)},),
        f"rajpurkar/{name}",
        {"train": "train", "dev": "validation"},
        {"format": "squad"},
        {"columns": columns},
        {"max_length": 384, "window_overlap": 128},
    )


SENTENCE = {"text": "sentence", "label": "label"}
PRESETS: dict[str, Preset] = {
    "glue/cola": _glue(
        "cola",
        ("matthews",),
        ("unacceptable", "acceptable"),
        {"header": False, "columns": {"text": 3, "label": 1}},
        SENTENCE,
        test_columns={"text": "sentence"},
    ),
    "glue/sst2": _glue("sst2", ("accuracy",), ("negative", "positive"), {"columns": SENTENCE}, SENTENCE),
    "glue/mrpc": _glue(
        "mrpc",
        ("f1", "accuracy"),
        ("not_equivalent", "equivalent"),
        {"columns": {"text": "#1 String", "text_pair": "#2 String", "label": "Quality"}},
        SENTENCES,
    ),
    "glue/stsb": _glue("stsb", ("pearson", "spearman"), (), {"columns": {**SENTENCES, "label": "score"}}, SENTENCES),
    "glue/qqp": _glue(
        "qqp",
        ("f1", "accuracy"),
        ("not_duplicate", "duplicate"),
        # some lines of the official file are cut short
        {"columns": {"text": "question1", "text_pair": "question2", "label": "is_duplicate"}, "on_bad_row": "drop"},
        {"text": "question1", "text_pair": "question2", "label": "label"},
    ),
    "glue/mnli": _mnli("matched"),
    "glue/mnli-mismatched": _mnli("mismatched"),
    "glue/qnli": _glue(
        "qnli",
        ("accuracy",),
        ENTAILMENT,
        {"columns": {"text": "question", "text_pair": "sentence", "label": "label"}},
        {"text": "question", "text_pair": "sentence", "label": "label"},
    ),
    "glue/rte": _glue("rte", ("accuracy",), ENTAILMENT, {"columns": SENTENCES}, SENTENCES, max_length=256),
    "glue/wnli": _glue("wnli", ("accuracy",), ("not_entailment", "entailment"), {"columns": SENTENCES}, SENTENCES),
    "squad": _squad("v1.1", "squad"),
    "squad_v2": _squad("v2.0", "squad_v2"),
    "conll2003": Preset(
        "tagging",
        ("entity_f1",),
        (
            {"train": ("eng.train",), "dev": ("eng.testa",), "test": ("eng.testb",)},
            {"train": ("train.txt",), "dev": ("valid.txt",), "test": ("test.txt",)},
            {"train": ("train.txt",), "dev": ("val.txt",), "test": ("test.txt",)},
        ),
        "lhoestq/conll2003",  # datasets runs no scripts, which the first upload is
        {"train": "train", "dev": "validation", "test": "test"},
        {"format": "conll"},
        {"columns": {"words": "tokens", "tags": "ner_tags"}},
        {"labels": list(CONLL_TAGS), "max_length": 256},
    ),
    "imdb": Preset(
        "classification",
        ("accuracy",),
        ({"train": ("train/neg", "train/pos"), "test": ("test/neg", "test/pos"), "unlabelled": ("train/unsup",)},),
        "stanfordnlp/imdb",
        {"train": "train", "test": "test", "unlabelled": "unsupervised"},
        {},
        {},
        {
            "columns": {"text": "text", "label": "label"},
            "labels": ["negative", "positive"],
            "label_names": {"0": "negative", "1": "positive", "neg": "negative", "pos": "positive"},
            "dev_fraction": 0.1,
            "max_length": 512,
        },
    ),
}
