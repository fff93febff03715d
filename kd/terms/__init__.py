"""The loss terms: one frozen model per term, whose fields are its YAML keys and whose call is its formula.

The list of terms is the type `Term`, a union on `kind`. A new loss is one class, one name in the union, one test, one golden value.
"""

from typing import Annotated

from pydantic import Field

from kd.terms.hidden import HiddenCosine
from kd.terms.logits import MaskedLM, SoftTargets
from kd.terms.view import Side, TokenView

Term = Annotated[SoftTargets | MaskedLM | HiddenCosine, Field(discriminator="kind")]

__all__ = ["HiddenCosine", "MaskedLM", "Side", "SoftTargets", "Term", "TokenView"]
