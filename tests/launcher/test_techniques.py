"""docs/techniques.md has every term, and every example in it is one."""

import re
from pathlib import Path
from typing import get_args

import yaml
from pydantic import TypeAdapter

from kd.terms import Term

TEXT = (Path(__file__).parents[2] / "docs" / "techniques.md").read_text()


def test_every_term_has_a_row_and_an_example_that_is_valid() -> None:
    kinds = {term.model_fields["kind"].default for term in get_args(get_args(Term)[0])}
    assert set(re.findall(r"^\| `(\w+)` \|", TEXT, re.M)) >= kinds
    (block,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.S)
    examples = yaml.safe_load(block)["objective"]
    terms = TypeAdapter(list[Term]).validate_python(examples)
    assert {term.kind for term in terms} == kinds
