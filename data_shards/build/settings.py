"""Settings of a build. Imports no numpy."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_shards.sources.settings import SourceSettings

Positive = Annotated[int, Field(gt=0)]


class BuildSettings(BaseModel):
    """The settings that decide a shard folder's bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: Annotated[tuple[SourceSettings, ...], Field(min_length=1)]
    tokenizer: str
    """A folder or hub name."""
    heldout: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Share of documents kept for evaluation, chosen by a hash of seed and text."""
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 1
    drop_duplicates: bool = False
    """Drop documents whose text is equal to an earlier one. Costs some 100 bytes of memory a document."""
    shard_tokens: Positive = 1 << 24
    block_tokens: Positive = 1 << 20
    max_documents: Positive | None = None
    """Stop after so many documents that are neither empty nor dropped."""

    @model_validator(mode="after")
    def _sizes(self) -> "BuildSettings":
        if self.block_tokens > self.shard_tokens:
            raise ValueError(
                f"expected block_tokens of at most shard_tokens, got {self.block_tokens} and {self.shard_tokens}; lower the first"
            )
        return self
