"""Check that models give the shards' ids the same meaning, token by token, before a weight is loaded.

A vocabulary of the same size says nothing: with another one's ids, training runs on without a word and teaches noise.
"""

from collections.abc import Mapping
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from data_shards.corpus import Corpus
from data_shards.errors import DataError
from data_shards.tokenizer.tokenizer import load_tokenizer, special_ids
from launcher.errors import LaunchError

VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model")


def check_tokenizers(models: Mapping[str, str], corpus: Corpus, required: bool = False) -> None:
    """LaunchError, naming the first difference, unless each model's tokenizer has the shards' ids. models: setting -> folder or hub name.

    required: a model without a tokenizer is refused too; else nothing can be said of it.
    """
    reference = corpus.tokenizer
    tokens = {index: token for token, index in reference.get_vocab().items()}
    special = vars(special_ids(reference))
    for place, model in models.items():
        tokenizer = _own(place, model, required)
        if tokenizer is None:
            continue
        where = f"{place}: expected the shards' tokenizer, got another in {model}"
        advice = "use teachers of one tokenizer" if required else "build shards with the model's own tokenizer, or name another model"
        own = {index: token for token, index in tokenizer.get_vocab().items()}
        for index in sorted(tokens.keys() | own.keys()):
            if tokens.get(index) != own.get(index):
                told = f"id {index} is {_shown(own, index)} there and {_shown(tokens, index)} in the shards"
                raise LaunchError(f"{where}: {told}; {advice}")
        for name, index in vars(special_ids(tokenizer, model)).items():
            if special[name] != index:
                raise LaunchError(f"{where}: {name} is {index} there and {special[name]} in the shards; {advice}")


def _own(place: str, model: str, required: bool) -> PreTrainedTokenizerBase | None:
    """A model's tokenizer; None where it has none and need not."""
    folder = Path(model).expanduser()
    if not required and folder.is_dir() and not any((folder / name).exists() for name in VOCABULARIES):
        return None
    try:
        return load_tokenizer(model)
    except DataError as error:
        if not required and not folder.is_dir():
            return None
        raise LaunchError(f"{place}: expected a model with its tokenizer, so that it can be compared, got none ({error})") from None


def _shown(tokens: dict[int, str], index: int) -> str:
    return repr(tokens[index]) if index in tokens else "nothing"
