"""The card of an exported model: its front matter is the hub's, its code runs, its formulas are the terms', and no path is in it."""

import contextlib
import io
import re
import typing

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import BertTokenizerFast

from kd.export.hugging_face import save_student
from kd.export.model_card import THIS_FOLDER, CardFacts, is_hub_name, model_card, model_title, public_name
from kd.models.config import quiet_transformers
from kd.models.encoder import Encoder
from kd.student.settings import StudentSettings
from kd.student.student import make_student
from kd.terms import Term
from kd.terms.hidden import HiddenCosine, HiddenMSE
from kd.terms.logits import MaskedLM, SoftTargets
from kd.terms.schedules import Ramp

TERMS = typing.get_args(typing.get_args(Term)[0])
FACTS = CardFacts(
    title="small",
    teachers=["owner/large"],
    base_models=["owner/large"],
    datasets=["owner/texts"],
    training={"updates": 12345, "teacher": "a|b"},
    data={"training documents": 2},
    objective=[("", [SoftTargets(weight=5.0), MaskedLM(weight=2.0), HiddenCosine()])],
    objective_yaml="objective:\n- {kind: mlm}\n",
    scores={"loss": 2.345678, "top1": 0.25, "top5": 0.5},
    predicted_tokens=1000,
    machine={"processor": "a processor", "ranks": 2},
    window_tokens=16,
    configuration="run: {folder: runs/small}\n",
    commands=["stillhouse train --config config.yaml"],
)


@pytest.fixture
def student(make_model):
    return make_student(StudentSettings(layers=[0, 2], architecture="same"), Encoder(make_model("bert")), seed=1)


def test_the_front_matter_is_the_hubs_and_has_no_licence(student):
    card = ModelCard(model_card(student, FACTS))
    data = card.data
    assert (data.base_model, data.datasets, data.library_name, data.pipeline_tag) == (
        ["owner/large"],
        ["owner/texts"],
        "transformers",
        "fill-mask",
    )
    assert (data.license, data.language) == (None, None)
    assert data.tags == ["distillation", "masked-lm", "stillhouse"]
    results = {result.metric_name: (result.task_type, result.metric_type, result.metric_value) for result in data.eval_results}
    assert results == {
        "loss (nats per masked token)": ("fill-mask", "loss", 2.3457),
        "top-1 accuracy": ("fill-mask", "accuracy", 0.25),
        "top-5 accuracy": ("fill-mask", "accuracy", 0.5),
    }


def test_only_a_student_of_a_teacher_is_tagged_distillation(student):
    for facts in (CardFacts(), CardFacts(title="alone", scores={"loss": 1.0})):
        card = model_card(student, facts)
        assert "distill" not in card
        assert "teacher" not in card
        assert ModelCard(card).data.tags == ["masked-lm", "stillhouse"]


def test_every_section_that_has_facts_is_there_and_others_are_not(student):
    def headings(facts: CardFacts) -> list[str]:
        return re.findall(r"^## (.*)$", model_card(student, facts), flags=re.M)

    assert headings(CardFacts()) == ["How to use", "Model", "Limits"]
    assert headings(FACTS) == [
        *("How to use", "Model", "Scores", "How it was made", "Objective", "Data", "Limits", "How to reproduce"),
    ]
    assert "\n- Nothing was measured. Its quality is unknown.\n" in model_card(student, CardFacts())
    card = model_card(student, FACTS)
    for line in (
        "- Only the scores above were measured. Its quality on other tasks and texts is unknown.",
        "| updates | 12,345 |",
        "| teacher | a\\|b |",
        "| first choice is right | 25.0% |",
        "| loss, nats per masked token | 2.346 |",
        "| processor | a processor |",
        "- It was trained on rows of 16 tokens. Longer inputs, up to 40 tokens, are untested.",
        "stillhouse train --config config.yaml",
    ):
        assert f"\n{line}\n" in card
    assert "Means over 1,000 masked tokens of held-out documents" in card


def test_the_formula_has_the_weights_and_settings_of_the_terms(student):
    card = model_card(student, FACTS)
    formula = card.partition("$$\n")[2].partition("\n$$")[0]
    assert formula == (
        r"\begin{aligned} \mathcal{L} = {} & 5 \, \big[ 2^2 \, \mathrm{KL}(\sigma(z^t / 2) \,\|\, \sigma(z^s / 2)) \big] "
        r"\\ & + 2 \, \big[ -\log \sigma(z^s)_y \big] \\ & + 1 \, \big[ \sum_{(i,j)} 1 - \cos(h^s_i, h^t_j) \big] \end{aligned}"
    )
    letters = card.partition("Letters: ")[2].partition(".\n")[0].split("; ")
    assert letters == [
        r"\\( s \\): student",
        r"\\( t \\): teacher",
        r"\\( z \\): logits",
        r"\\( y \\): the label, for text the masked token",
        r"\\( \sigma \\): softmax",
        r"\\( (i,j) \\): matched layers, student layer i and teacher layer j",
        r"\\( h \\): hidden state",
        r"\\( \mathrm{KL} \\): Kullback-Leibler divergence",
    ]


def test_a_scheduled_weight_is_a_function_of_the_update_and_phases_have_a_formula_each(student):
    falling = SoftTargets(weight=Ramp(**{"schedule": "linear", "from": 4.0, "to": 1.0}), alpha=0.5, positions="masked")
    card = model_card(student, CardFacts(objective=[("hints", [HiddenMSE(projection="shared")]), ("soft", [falling])]))
    assert r"w_{1}(u) \, \big[ 0.5 \, (-\log \sigma(z^s)_y) + (1 - 0.5) \, 2^2" in card
    assert r"\\( (u) \\): a value that changes with the update u, as the YAML says" in card
    assert card.index("Phase hints:") < card.index(r"\tfrac{1}{D} \lVert (W h^s_i + b) - h^t_j \rVert^2") < card.index("Phase soft:")


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term.model_fields["kind"].default)
def test_every_term_has_a_formula_whose_brackets_close(term):
    formula = term().formula
    assert formula
    for opening, closing in ("{}", "()"):
        assert formula.count(opening) == formula.count(closing)
    assert set(re.findall(r"\\[a-zA-Z]+", formula)) <= {
        *(
            r"\sum",
            r"\log",
            r"\sigma",
            r"\mathrm",
            r"\cos",
            r"\tfrac",
            r"\lVert",
            r"\rVert",
            r"\sqrt",
            r"\top",
            r"\psi",
            r"\angle",
            r"\in",
            r"\ell",
        ),
    }


@pytest.mark.parametrize("architecture", ["same", "distilbert"])
def test_the_code_of_the_card_runs(make_model, tmp_path, architecture):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "house", "stands", "on", "a", "hill", "."]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "tokenizer")
    student = make_student(StudentSettings(layers=[0, 2], architecture=architecture), Encoder(make_model("bert")), seed=1)
    save_student(student, tmp_path / "student", tokenizer_folder=tmp_path / "tokenizer", card=FACTS)
    text = (tmp_path / "student" / "README.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.S))
    assert code.count(THIS_FOLDER) == 1
    names: dict[str, typing.Any] = {}
    with quiet_transformers(), torch.no_grad(), contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code.replace(THIS_FOLDER, f"MODEL = {str(tmp_path / 'student')!r}"), names)
    assert len(printed.getvalue().splitlines()) == 5
    assert len(names["outputs"].hidden_states) == 3


def test_a_model_is_called_by_the_title_of_its_own_card(tmp_path):
    folder = tmp_path / "snapshots"
    folder.mkdir()
    assert model_title(str(folder)) == "snapshots"
    (folder / "README.md").write_text("---\nlicense: mit\n---\ntext\n\n# `demo`-teacher\n\n# Other\n")
    assert model_title(str(folder)) == "demo-teacher"
    (folder / "README.md").write_text("no title")
    assert model_title(str(folder)) == "snapshots"
    assert model_title("owner/name") == "owner/name"


def test_a_card_names_the_last_folder_of_a_private_path(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    assert [public_name(model) for model in (str(tmp_path / "models"), "models", "./models", "/absent/mine")] == ["models"] * 3 + ["mine"]
    assert [public_name(model) for model in ("bert-base-uncased", "owner/name")] == ["bert-base-uncased", "owner/name"]
    assert [is_hub_name(model) for model in ("bert-base-uncased", "owner/name", "models", "./models", "/a/b", "a/b/c")] == [True] * 2 + [
        False
    ] * 4
