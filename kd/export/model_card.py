"""README.md of an exported model: what the model is, how it was made, what it scored, and how to use it and make it again.

The front matter is written by huggingface_hub, whose hub reads it. A licence and a language are facts that nobody can derive: they are not
here. `stillhouse push` adds them. Every value of CardFacts is meant to be public; public_name makes a path so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import EvalResult, ModelCardData

from kd.export.files import CARD
from kd.models.sizes import model_sizes
from kd.terms.base import TermSettings, shown

if TYPE_CHECKING:  # a push reads a card, and needs no torch
    from kd.models.encoder import Encoder

THIS_FOLDER = 'MODEL = "path/to/this/folder"'
"""The line of the card's code that names the model. A push replaces the path by the repository."""
MAX_CARD = 1 << 16
"""Letters of another model's card that are searched for its title."""
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
LETTERS = {
    "z": "logits",
    "y": "the label, for text the masked token",
    r"\ell": "the task's loss: cross-entropy, its index the label smoothing, or squared error",
    r"\sigma": "softmax",
    "(i,j)": "matched layers, student layer i and teacher layer j",
    "h": "hidden state",
    "e": "output of the embeddings",
    "W": "learned map, which is not part of this model",
    "D": "width",
    "A": "attention distribution of a head",
    "Q": "queries of a head, with keys K",
    "R": "relation, the softmax of products of queries, keys or values of a head",
    "G": "similarities of the b documents of a batch, with rows of length 1",
    "m": "another document of the batch",
    r"\psi": "distance relative to the mean distance",
    r"\mathrm{KL}": "Kullback-Leibler divergence",
    r"\mathrm{KL_{sym}}": "mean of the Kullback-Leibler divergences in both directions",
    r"\mathrm{JS}": "Jensen-Shannon divergence",
    "(u)": "a value that changes with the update u, as the YAML says",
}
"""The meaning of the letters in the terms' formulas, in the order in which a card explains them."""


@dataclass(frozen=True)
class CardFacts:
    """The content of a card beyond the model's sizes. An empty field leaves its section out."""

    title: str = ""
    teachers: Sequence[str] = ()
    """Public names of the teachers."""
    base_models: Sequence[str] = ()
    """Hub names of the teachers and of the model that training began from: those that the hub can link to."""
    datasets: Sequence[str] = ()
    """Hub names of the data sets in the corpus."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Rows of the table of how it was made, in order."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Rows of the table of the corpus."""
    objective: Sequence[tuple[str, Sequence[TermSettings]]] = ()
    """(name, terms) of each phase; the name of a single phase is empty."""
    objective_yaml: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Held-out scores by the keys of kd.evaluation.scores.SCORES."""
    predicted_tokens: int = 0
    """The number of masked tokens that the scores are means over."""
    machine: Mapping[str, Any] = field(default_factory=dict)
    window_tokens: int | None = None
    configuration: str = ""
    """The whole configuration as YAML, without private paths."""
    commands: Sequence[str] = ()
    """The commands that make the model again, one a line."""


def model_card(encoder: Encoder, facts: CardFacts) -> str:
    """README.md of a model: front matter for the hub, then the sections that the facts fill."""
    name = facts.title or f"{encoder.family.name} with {encoder.layers} layers"
    sections = [
        f"# {name}",
        _introduction(encoder, facts),
        _usage(),
        _table("Model", _sizes(encoder)),
        _scores(facts),
        _table("How it was made", facts.training),
        _objective(facts),
        _table("Data", facts.data),
        _limits(encoder, facts),
        _reproduction(facts),
    ]
    return f"---\n{_front_matter(name, facts)}\n---\n\n" + "\n\n".join(section for section in sections if section) + "\n"


def public_name(model: str) -> str:
    """A model as the card names it: a hub name, or the last folder of a path, whose other folders are private."""
    return Path(model).resolve().name if Path(model).exists() or model.startswith(("/", "~", ".")) else model


def model_title(model: str) -> str:
    """A model's name for readers: a hub name, the title of a folder's own card, or the folder's public name."""
    card = Path(model) / CARD
    if not card.is_file():
        return public_name(model)
    with card.open(encoding="utf-8", errors="replace") as file:
        titles = [re.sub(r"[`*|]", "", line[2:]).strip() for line in file.read(MAX_CARD).splitlines() if line.startswith("# ")]
    return titles[0][:80] if titles and titles[0] else public_name(model)


def is_hub_name(model: str) -> bool:
    """True if a model is a name of the hub and no folder of this machine."""
    return HUB_NAME.fullmatch(model) is not None and not Path(model).exists()


def _front_matter(name: str, facts: CardFacts) -> str:
    results = [
        EvalResult(
            task_type="fill-mask",
            dataset_type="held-out",
            dataset_name="held-out documents of the training corpus",
            metric_type={"loss": "loss", "top1": "accuracy", "top5": "accuracy"}[key],
            metric_name=text,
            metric_value=round(facts.scores[key], 4),
        )
        for key, text in {"loss": "loss (nats per masked token)", "top1": "top-1 accuracy", "top5": "top-5 accuracy"}.items()
        if key in facts.scores
    ]
    data = ModelCardData(
        base_model=list(facts.base_models) or None,
        datasets=list(facts.datasets) or None,
        library_name="transformers",
        pipeline_tag="fill-mask",
        tags=[*(["distillation"] if facts.teachers else []), "masked-lm", "stillhouse"],
        model_name=name if results else None,
        eval_results=results or None,
    )
    return data.to_yaml()


def _introduction(encoder: Encoder, facts: CardFacts) -> str:
    kind = f"A masked-language model of {encoder.layers} layers of width {encoder.width} ({encoder.family.name})"
    if facts.teachers:
        kind += f", distilled from {' and '.join(f'`{name}`' for name in facts.teachers)}"
    return f"{kind}. It was made with Stillhouse and loads with transformers alone."


def _usage() -> str:
    return f"""## How to use

```python
from transformers import pipeline

{THIS_FOLDER}
fill = pipeline("fill-mask", model=MODEL)
for guess in fill(f"The house stands on a {{fill.tokenizer.mask_token}}."):
    print(guess["token_str"], guess["score"])
```

For its hidden states, or to train it further:

```python
from transformers import AutoModelForMaskedLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(MODEL)
model = AutoModelForMaskedLM.from_pretrained(MODEL)
outputs = model(**tokenizer("The house stands on a hill.", return_tensors="pt"), output_hidden_states=True)
```"""


def _sizes(encoder: Encoder) -> dict[str, Any]:
    sizes = model_sizes(encoder)
    return {
        "layers": encoder.layers,
        "width": encoder.width,
        "parameters": sizes.parameters,
        "bytes": sizes.bytes,
        "vocabulary": encoder.vocabulary,
        "longest input, tokens": encoder.max_positions,
    }


def _scores(facts: CardFacts) -> str:
    if not facts.scores:
        return ""
    names = {
        "loss": ("loss, nats per masked token", ".3f"),
        "top1": ("first choice is right", ".1%"),
        "top5": ("right token among the first five choices", ".1%"),
    }
    rows = {text: format(facts.scores[key], form) for key, (text, form) in names.items() if key in facts.scores}
    where = f"Means over {facts.predicted_tokens:,} masked tokens of held-out documents, which training did not see."
    machine = _rows(facts.machine)
    measured = f"\n\nMeasured on:\n\n{machine}" if machine else ""
    return f"## Scores\n\n{where}\n\n{_rows(rows)}{measured}"


def _objective(facts: CardFacts) -> str:
    if not facts.objective:
        return ""
    parts = ["## Objective", "The loss is a weighted sum. Each term is a mean over the tokens or documents that it looks at."]
    latex = ""
    for name, terms in facts.objective:
        summands = [rf"{shown(term.weight, f'w_{{{number}}}')} \, \big[ {term.formula} \big]" for number, term in enumerate(terms, start=1)]
        lines = r" \\ & + ".join(summands)
        formula = rf"\begin{{aligned}} \mathcal{{L}} = {{}} & {lines} \end{{aligned}}"
        latex += formula
        parts += [f"Phase {name}:"] if name else []
        parts.append(f"$$\n{formula}\n$$")
    models = [_inline("s") + ": student", *([_inline("t") + ": teacher"] if facts.teachers else [])]
    letters = [f"{_inline(letter)}: {text}" for letter, text in LETTERS.items() if _stands_in(latex, letter)]
    parts.append(f"Letters: {'; '.join([*models, *letters])}.")
    if facts.objective_yaml:
        parts.append(f"The same as YAML:\n\n```yaml\n{facts.objective_yaml.strip()}\n```")
    return "\n\n".join(parts)


def _inline(latex: str) -> str:
    """LaTeX within a line, as the hub's pages read it."""
    return rf"\\( {latex} \\)"


def _stands_in(latex: str, letter: str) -> bool:
    """True if a formula has this letter, and not as a part of a name."""
    bare = latex.replace("mean", "").replace("huber", "")
    return letter in latex if letter.startswith("(") else re.search(rf"(?<![A-Za-z]){re.escape(letter)}(?![a-z])", bare) is not None


def _limits(encoder: Encoder, facts: CardFacts) -> str:
    measured = "Nothing was measured. Its quality is unknown."
    if facts.scores:
        measured = "Only the scores above were measured. Its quality on other tasks and texts is unknown."
    limits = [
        "It fills masks and gives hidden states. It was not trained to follow instructions, to classify, or to embed sentences.",
        measured,
        "It repeats the errors and biases of its training text" + (" and of its teacher." if facts.teachers else "."),
    ]
    if facts.window_tokens and facts.window_tokens < encoder.max_positions:
        limits.append(
            f"It was trained on rows of {facts.window_tokens} tokens. Longer inputs, up to {encoder.max_positions:,} tokens, are untested."
        )
    return "## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits)


def _reproduction(facts: CardFacts) -> str:
    if not facts.configuration:
        return ""
    commands = "\n".join(facts.commands)
    return f"""## How to reproduce

Save the configuration below as `config.yaml`, put your own folders in, and run:

```sh
{commands}
```

<details><summary>config.yaml</summary>

```yaml
{facts.configuration.strip()}
```

</details>"""


def _table(title: str, rows: Mapping[str, Any]) -> str:
    return f"## {title}\n\n{_rows(rows)}" if rows else ""


def _rows(rows: Mapping[str, Any]) -> str:
    """A table of two columns; an empty text without rows."""
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {_cell(value)} |" for name, value in rows.items())]) if rows else ""


def _cell(value: Any) -> str:
    """A value on one line of a table."""
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    text = f"{value:.4g}" if isinstance(value, float) else text
    return " ".join(text.split()).replace("|", "\\|")
