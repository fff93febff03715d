"""The fingerprint of a tokenizer: equal for tokenizers that give the same ids."""

import json
from typing import Any

from stillhouse.digests import canonical_sha256

NOT_IN_THE_IDS = ("version", "truncation", "padding", "post_processor", "decoder")  # parts of tokenizer.json


def plain_json(tokenizer: Any) -> str:
    """tokenizer.json of the same tokenizer without truncation, padding and BPE dropout."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content["truncation"] = content["padding"] = None
    if content["model"].get("dropout") is not None:
        content["model"]["dropout"] = None
    return json.dumps(content, ensure_ascii=False)


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """sha256 of everything in a fast tokenizer that decides the ids of a text."""
    content = json.loads(plain_json(tokenizer))
    return canonical_sha256({key: value for key, value in content.items() if key not in NOT_IN_THE_IDS}, ascii_only=False)
