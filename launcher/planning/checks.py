"""Checks of models against a corpus, before a run: vocabulary, window length, packing. Each error is one line."""

from data_shards.storage.manifest import Manifest
from data_shards.stream.stream import StreamSettings
from kd.models.encoder import Encoder
from launcher.errors import LaunchError

SPARE_ROWS = 256  # a vocabulary may be padded to a round number of rows, no further


def check_fits(name: str, encoder: Encoder, manifest: Manifest, stream: StreamSettings) -> None:
    """A model and a corpus belong together: vocabulary, window length, and documents side by side."""
    if not manifest.vocabulary_size <= encoder.vocabulary <= manifest.vocabulary_size + SPARE_ROWS:
        raise LaunchError(
            f"{name}: expected a vocabulary of {manifest.vocabulary_size}, the shards', got {encoder.vocabulary}; "
            f"build shards with the {name}'s own tokenizer"
        )
    if stream.window_tokens > encoder.max_positions:
        raise LaunchError(
            f"data.window_tokens: expected at most {encoder.max_positions}, the {name}'s positions, "
            f"got {stream.window_tokens}; shorten them"
        )
    if not encoder.packs and stream.packing == "windows" and not stream.attend_across_documents:
        raise LaunchError(
            f"data.packing: expected documents for the {name}, whose convolution reads across the documents of a window, got windows; "
            "set data.packing: documents (evaluate: --packing documents)"
        )
