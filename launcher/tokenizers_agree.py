"""Whether several teachers read the shards' ids as the shards mean them: proven token by token, before a weight is loaded."""

from collections.abc import Mapping

from data_shards.errors import DataError
from data_shards.location import Location
from data_shards.manifest import Manifest
from data_shards.tokenizer import load_tokenizer, shards_tokenizer, special_ids
from launcher.errors import LaunchError


def check_tokenizers(teachers: Mapping[str, str], shards: Location, manifest: Manifest) -> None:
    """LaunchError, naming the first difference, unless each teacher's tokenizer has the shards' ids. teachers: setting -> model."""
    reference = shards_tokenizer(shards, manifest)
    tokens = {index: token for token, index in reference.get_vocab().items()}
    special = vars(special_ids(reference))
    for place, model in teachers.items():
        try:
            tokenizer = load_tokenizer(model)
        except DataError as error:
            raise LaunchError(f"{place}: expected a teacher with its tokenizer, so that it can be compared, got none ({error})") from None
        where = f"{place}: expected the shards' tokenizer, as of all teachers, got another in {model}"
        own = {index: token for token, index in tokenizer.get_vocab().items()}
        for index in sorted(tokens.keys() | own.keys()):
            if tokens.get(index) != own.get(index):
                told = f"id {index} is {_shown(own, index)} there and {_shown(tokens, index)} in the shards"
                raise LaunchError(f"{where}: {told}; use teachers of one tokenizer")
        for name, index in vars(special_ids(tokenizer, model)).items():
            if special[name] != index:
                told = f"{name} is {index} there and {special[name]} in the shards"
                raise LaunchError(f"{where}: {told}; use teachers of one tokenizer")


def _shown(tokens: dict[int, str], index: int) -> str:
    return repr(tokens[index]) if index in tokens else "nothing"
