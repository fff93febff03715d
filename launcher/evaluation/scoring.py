"""Scores of models of one corpus against one teacher, for `stillhouse evaluate` and for comparisons."""

from collections.abc import Iterable
from typing import Any

from data_shards.corpus import Corpus
from data_shards.stream.settings import StreamSettings
from data_shards.stream.stream import Stream
from kd.distributed import process_group
from kd.evaluation.cka import layer_similarity
from kd.evaluation.mlm import MlmScores
from kd.evaluation.scores import retention
from kd.models.encoder import Encoder
from kd.models.loading import load_mlm
from launcher.errors import LaunchError
from launcher.planning.checks import check_fits
from launcher.planning.tokenizer_check import check_tokenizers
from launcher.training.batches import heldout_batches
from launcher.training.evaluations import heldout_scores

SAMPLE_TOKENS = 2048  # for the similarity of layers: all states of all layers are held at once


class Scorer:
    """Scores models on the held-out windows of one corpus. The teacher is loaded once, at its first use. fp32, deterministic."""

    def __init__(self, shards: str, settings: StreamSettings, teacher: str | None, windows: int | None, batch: int) -> None:
        """teacher: a folder or hub name. windows: number of held-out windows; None: all. batch: windows per forward pass.

        Raises LaunchError for shards without a held-out part.
        """
        self.settings = settings
        self.windows, self.batch = windows, batch
        self.teacher_name = teacher
        self.corpus = Corpus.open(shards, settings.cache_folder)
        if not self.corpus.manifest.entries("heldout"):
            raise LaunchError(f"{shards}: expected a held-out part, got none; build the shards with --heldout 0.01")
        self._teacher: Encoder | None = None
        self._streams: dict[int, Stream] = {}

    def check_tokenizers(self, models: Iterable[str]) -> None:
        """Raises LaunchError for a model, or the teacher, whose tokenizer is not that of the shards."""
        teacher = {"teacher": self.teacher_name} if self.teacher_name is not None else {}
        check_tokenizers({name: name for name in models} | teacher, self.corpus)

    @property
    def teacher(self) -> Encoder | None:
        """The teacher's model; None without a teacher."""
        if self._teacher is None and self.teacher_name is not None:
            self._teacher = self.load("teacher", self.teacher_name)
        return self._teacher

    def load(self, role: str, path: str) -> Encoder:
        """A model on this rank's device. Raises KdError or LaunchError for one that does not fit the shards."""
        encoder = load_mlm(path)
        check_fits(role, encoder, self.corpus.manifest, self.settings)
        return encoder.to(process_group.device())

    def scores(self, encoder: Encoder, seed: int | None = None, beside_teacher: bool = True) -> MlmScores:
        """The held-out scores of a model. seed: of the masks; None: that of the settings."""
        teacher = self.teacher if beside_teacher else None
        return heldout_scores(encoder, self._stream(seed), self.corpus.manifest.vocabulary_size, self.batch, self.windows, teacher)

    def similarity(self, encoder: Encoder, seed: int | None = None) -> list[list[float]] | None:
        """Linear CKA [the model's layers][the teacher's layers] on the first SAMPLE_TOKENS held-out tokens; None without a teacher."""
        if self.teacher is None:
            return None
        batches = heldout_batches(self._stream(seed), self.batch, None)
        table: list[list[float]] = layer_similarity(encoder, self.teacher, batches, SAMPLE_TOKENS).tolist()
        return table

    def _stream(self, seed: int | None) -> Stream:
        seed = self.settings.seed if seed is None else seed
        if seed not in self._streams:
            self._streams[seed] = Stream(self.corpus, "heldout", self.settings.model_copy(update={"seed": seed}), 1)
        return self._streams[seed]


def with_retention(row: dict[str, Any], teacher_row: dict[str, Any] | None) -> dict[str, Any]:
    """A row of scores plus `retention`, its top-1 accuracy over the teacher's; None without a teacher."""
    return row | {"retention": retention(row["top1"], teacher_row["top1"] if teacher_row is not None else None)}
