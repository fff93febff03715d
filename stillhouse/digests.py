"""Digests of JSON values."""

import hashlib
import json


def canonical_sha256(value: object, ascii_only: bool) -> str:
    """The sha256 of a JSON value, in hexadecimal. Key order and white space do not change it.

    ascii_only: escape letters outside ASCII. Manifests do not (False), checkpoints and caches do (True); files of both kinds exist.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=ascii_only)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
