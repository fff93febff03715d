"""What docs/techniques.md says of terms is so: rows of kinds that there are, each once, and with an example that is valid."""

import re
from pathlib import Path
from typing import get_args

import yaml
from pydantic import TypeAdapter

from kd.terms import Term

TEXT = (Path(__file__).parents[2] / "docs" / "techniques.md").read_text()


def test_every_row_is_a_terms_and_has_an_example_that_is_valid() -> None:
    """A new term needs none of them to work (CONTRIBUTING.md): its class documents it."""
    kinds = {term.model_fields["kind"].default for term in get_args(get_args(Term)[0])}
    rows = [row for row in re.findall(r"^\| `(\w+)` \|", TEXT.partition("\n## ")[0], re.M) if row != "kind"]
    assert len(rows) == len(set(rows)) >= 15
    assert set(rows) <= kinds
    (block,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.S)
    examples = yaml.safe_load(block)["objective"]
    terms = TypeAdapter(list[Term]).validate_python(examples)
    assert {term.kind for term in terms} == set(rows)
