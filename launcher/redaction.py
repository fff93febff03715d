"""Credentials inside URLs are used, and written nowhere: whatever is shown or kept passes through here first."""

import re
from typing import Any

SECRET = re.compile(
    r"(?<=://)[^/@\s]+(?=@)"  # user:password@
    r"|(?<=[?&])([\w.-]*(?:token|key|secret|signature|password|credential)[\w.-]*=)[^&\s#]+",
    re.IGNORECASE,
)


def redacted(value: Any) -> Any:
    """The same value, whatever it is made of, with *** for user:password@ and for the values of key, token, signature … in URLs."""
    if isinstance(value, dict):
        return {key: redacted(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(inner) for inner in value]
    return SECRET.sub(lambda match: f"{match[1] or ''}***", value) if isinstance(value, str) else value
