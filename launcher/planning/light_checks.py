"""Mistakes in a configuration that are found within a second: without torch, DeepSpeed and transformers. The plan checks the rest."""

from data_shards.storage.location import Location
from data_shards.storage.manifest import Manifest
from kd.models.folder import check_model_folder
from launcher.config.run_config import RunConfig
from launcher.errors import LaunchError


def check_inputs(config: RunConfig, world: int) -> None:
    """Raise LaunchError for batch arithmetic that does not divide over `world` ranks, DataError for a local folder that holds no shards,
    KdError for a local folder that holds no model.
    """
    try:
        config.train.micro_batches(world)
    except ValueError as error:
        raise LaunchError(str(error)) from None
    location = Location.of(config.data.shards, config.data.cache_folder)
    if not location.is_remote:
        Manifest.load(location)
    for member in config.members.values():
        check_model_folder(member.model)
    if config.student.init != "teacher":
        check_model_folder(config.student.init)
