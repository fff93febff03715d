"""The loss terms: one frozen model per term, whose fields are its YAML keys and whose call is its formula.

The list of terms is the type `Term`, a union on `kind`. A new loss is one class, one name in the union, one test, one golden value.
"""

from typing import Annotated

from pydantic import Field

from kd.terms.attention import AttentionKL, AttentionMSE, Relations
from kd.terms.documents import Contrastive, RelationalAngle, RelationalDistance, Similarity
from kd.terms.hidden import EmbeddingMSE, HiddenCosine, HiddenMSE, Hints, Patient
from kd.terms.logits import LogitMSE, MaskedLM, SoftTargets, TaskLoss

Term = Annotated[
    SoftTargets
    | MaskedLM
    | LogitMSE
    | TaskLoss
    | HiddenCosine
    | HiddenMSE
    | EmbeddingMSE
    | Hints
    | Patient
    | AttentionKL
    | AttentionMSE
    | Relations
    | Similarity
    | RelationalDistance
    | RelationalAngle
    | Contrastive,
    Field(discriminator="kind"),
]
