"""Mistakes in a configuration that are found within a second: without torch, DeepSpeed and transformers. The plan checks the rest."""

from pathlib import Path

from data_shards.corpus import Corpus
from kd.models.folder import check_model_folder
from launcher.config.run_config import AnyRunConfig, RunConfig
from launcher.errors import LaunchError

SPLITS = ("train", "dev", "test", "unlabelled")


def check_inputs(config: AnyRunConfig, world: int) -> Corpus | None:
    """The open corpus of a configuration; None for a task.

    Raises LaunchError for batch arithmetic that does not divide over `world` ranks and for a missing file of a task. Raises DataError for
    a folder or URL without shards, and KdError for a local folder without a model.
    """
    try:
        config.train.micro_batches(world)
    except ValueError as error:
        raise LaunchError(str(error)) from None
    corpus = None
    if isinstance(config, RunConfig):
        corpus = Corpus.open(config.data.shards, config.data.cache_folder)
    else:
        _check_files(config)
    for member in config.members.values():
        check_model_folder(member.model)
    if config.student.init != "teacher":
        check_model_folder(config.student.init)
    return corpus


def _check_files(config: AnyRunConfig) -> None:
    for split in SPLITS:
        for path in config.data.paths(split):
            plain = not path.startswith("hub:") and "://" not in path and not set("*?[{") & set(path)
            if plain and not Path(path).expanduser().exists():
                raise LaunchError(f"data.{split}: expected a file, got none at {path}; correct the path")
