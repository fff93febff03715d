"""Held-out scores of a model: the one function that runs, `stillhouse evaluate` and comparisons use."""

from collections.abc import Callable, Iterator

from data_shards.stream.stream import Stream
from kd.batch import Batch
from kd.distributed import process_group
from kd.evaluation.mlm import MlmScores, evaluate_mlm
from kd.models.encoder import Encoder
from launcher.training.batches import heldout_batches


def heldout_scores(
    encoder: Encoder,
    heldout: Stream,
    vocabulary: int,
    batch: int,
    windows: int | None,
    teacher: Encoder | None = None,
    before_batch: Callable[[], None] = lambda: None,
) -> MlmScores:
    """Scores of an encoder on held-out windows, beside a teacher if there is one. Collective: each rank computes its share of the windows.

    vocabulary: number of real tokens. batch: windows per forward pass. windows: number over all ranks; None: all of them.
    before_batch: called before each forward pass, as a sign of progress. Raises KdError if no position is predicted.
    """

    def batches() -> Iterator[Batch]:
        for rows in heldout_batches(heldout, batch, windows, rank=process_group.rank(), world=process_group.world_size()):
            before_batch()
            yield rows

    return evaluate_mlm(encoder, batches(), teacher, vocabulary, over_ranks=process_group.sum_over_ranks)
