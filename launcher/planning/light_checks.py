"""Mistakes in a configuration that are found within a second: without torch, DeepSpeed and transformers. The plan checks the rest."""

from data_shards.corpus import Corpus
from kd.models.folder import check_model_folder
from launcher.config.run_config import RunConfig
from launcher.errors import LaunchError


def check_inputs(config: RunConfig, world: int) -> Corpus:
    """The open corpus of a configuration.

    Raises LaunchError for batch arithmetic that does not divide over `world` ranks. Raises DataError for a folder or URL without shards,
    and KdError for a local folder without a model.
    """
    try:
        config.train.micro_batches(world)
    except ValueError as error:
        raise LaunchError(str(error)) from None
    corpus = Corpus.open(config.data.shards, config.data.cache_folder)
    for member in config.members.values():
        check_model_folder(member.model)
    if config.student.init != "teacher":
        check_model_folder(config.student.init)
    return corpus
