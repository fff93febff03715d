"""Held-out scores of a run's student, computed by all ranks together."""

from collections.abc import Iterator

from data_shards.stream.stream import Stream
from kd.batch import Batch
from kd.distributed import process_group
from kd.evaluation.mlm import MlmScores, evaluate_mlm
from kd.models.encoder import Encoder
from kd.training.trainer import Trainer
from launcher.config.run_config import EvaluateSettings
from launcher.training.batches import heldout_batches


def heldout_scores(trainer: Trainer, student: Encoder, heldout: Stream, settings: EvaluateSettings) -> MlmScores:
    """Scores of the trainer's student on `settings.windows` held-out windows (None: all of them). Collective."""

    def reported(batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in batches:
            trainer.progress.touch()  # an evaluation may take longer than train.timeout_seconds: each batch is progress
            yield batch

    batches = heldout_batches(heldout, settings.batch, settings.windows, rank=process_group.rank(), world=process_group.world_size())
    return evaluate_mlm(student, reported(batches), vocabulary=trainer.vocabulary, over_ranks=process_group.sum_over_ranks)
