"""Settings of TinyBERT's data augmentation. Imports no torch."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class AugmentationSettings(BaseModel):
    """The names in brackets are the paper's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    copies: Annotated[int, Field(ge=1)] = 20
    """Texts made of each text (N_a); fewer if a text has too few words for that many different texts."""
    probability: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Probability that a word is replaced (p_t)."""
    candidates: Annotated[int, Field(ge=1)] = 15
    """Words to choose from (K)."""
    seed: int = 0
