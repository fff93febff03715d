"""Settings of the stream. Imports no numpy."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stillhouse.settings import FREE

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]


class MaskingSettings(BaseModel):
    """The share of tokens that is predicted, and the ids that replace them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: Literal["token", "whole_word", "frequency"] = "token"
    """token: each alike; whole_word: all pieces of a word together; frequency: rare ids more often, weight count^-smoothing."""
    rate: Annotated[float, Field(gt=0, lt=1)] = 0.15
    mask_share: Share = 0.8
    random_share: Share = 0.1
    smoothing: Annotated[float, Field(ge=0)] = 0.7

    @model_validator(mode="after")
    def _shares(self) -> "MaskingSettings":
        if self.mask_share + self.random_share > 1:
            raise ValueError(f"expected mask_share + random_share of at most 1, got {self.mask_share} + {self.random_share}; lower either")
        return self


class StreamSettings(BaseModel):
    """The layout, order and masks of a split's rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window_tokens: Annotated[int, Field(ge=4)] = 128
    """Positions of a row, [CLS] and [SEP] included."""
    packing: Literal["windows", "documents"] = "windows"
    """windows: full rows of several documents; documents: one piece of one document per row, in batches of like length."""
    attend_across_documents: bool = False
    lanes: Positive = 32
    """Contiguous ranges of an epoch that are read side by side: at least the number of nodes."""
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 1
    masking: MaskingSettings = MaskingSettings()
    bin_width: Positive = 32
    """For packing documents: row lengths are rounded up to a multiple of this."""
    cache_folder: Annotated[str | None, FREE] = None
    """The folder for copies of remote shards."""
    on_corrupt: Annotated[Literal["stop", "skip"], FREE] = "stop"
    """The reaction to a shard that is missing, cut short or altered. skip: its rows are padding only; all other rows stay the same."""
    max_skipped_shards: Annotated[int, Field(ge=0), FREE] = 1
    """The number of shards that may be skipped; the next one stops the run."""
