"""Credentials in URLs become ***. Every text that is printed or stored passes through `redacted`.

The structure of a URL decides, not a list of secret names. The user part, the values of query and fragment, and `;name=value` in the path
are hidden. Only the names in HARMLESS keep their values. `hide` in slurm/common.sh does the same; one table tests both.
"""

import re
from typing import Any

HARMLESS = {
    *("page", "part", "sort", "order", "limit", "offset", "length", "start", "end", "version"),
    *("versionid", "revision", "ref", "format", "download", "split", "lang"),
    *("x-amz-algorithm", "x-amz-date", "x-amz-expires", "x-amz-signedheaders"),
    *("sv", "sr", "sp", "st", "se", "spr"),
}
"""Names whose values are shown, in lower case. The last six are the version and validity of an Azure signature."""
USER = re.compile(
    r"://[^/\s]*@"
    r"|://[^][/@\s]*:\d*[^/@\s\d][^/@\s]*/[^\s\"']*@"  # a password with a slash; what follows the colon is no port
    r"|://[^][/@\s]*:\d*/[^\s\"'?#]*@"  # after a port, an @ behind ? or # belongs to a value
)
URL = re.compile(r"://[^\s\"<>]*[^\s\"<>:,.;)'\]}!]")  # marks at the end belong to the sentence
PATH_VALUE = re.compile(r"(;)([^=;/]+)(=)[^;/]+")
VALUE = re.compile(r"([?&;#])([^=?&;#]*)(?:(=)[^?&;#]*)?")
ANCHOR = re.compile(r"[A-Za-z_-]{1,20}")
LOOSE_VALUE = re.compile(r"([?&])([^=?&;#/\s\"']+)(=)[^&;#\s\"<>]*[^&;#\s\"<>:,.)'\]}!]")
"""A value of a URL without its host, as HTTP libraries quote it."""


def redacted(value: Any) -> Any:
    """The same value, with *** for the credentials in its texts. Tuples become lists."""
    if isinstance(value, dict):
        return {key: redacted(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(inner) for inner in value]
    if not isinstance(value, str) or not re.search("://|[?&]", value):
        return value
    text = URL.sub(_without_values, USER.sub("://***@", value))
    return LOOSE_VALUE.sub(_hidden, text)


def _without_values(url: re.Match[str]) -> str:
    place = re.search("[?#]|$", url[0])
    assert place is not None
    return PATH_VALUE.sub(_hidden, url[0][: place.start()]) + VALUE.sub(_hidden, url[0][place.start() :])


def _hidden(piece: re.Match[str]) -> str:
    """`?name=***`, and `?***` for a value without a name. A plain word after # is an anchor, which stays."""
    mark, name, equals = piece.groups()
    if equals:
        return piece[0] if name.lower() in HARMLESS else f"{mark}{name}=***"
    return piece[0] if not name or (mark == "#" and ANCHOR.fullmatch(name)) else f"{mark}***"
