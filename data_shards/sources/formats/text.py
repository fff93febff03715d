"""Plain text: a document per line, per paragraph, or per file."""

import codecs
from collections.abc import Iterator
from typing import BinaryIO

from data_shards.errors import DataError
from data_shards.sources.formats.common import MAX_LINE_BYTES, Fields, Format, Found, check_is_text, decoded, lines


def read(file: BinaryIO, fields: Fields) -> Iterator[Found]:
    """A text file's lines, paragraphs, or its whole content. Line ends and a byte order mark are no part of a document."""
    if fields.per == "file":
        content = file.read(MAX_LINE_BYTES + 1)
        check_is_text(content, fields.path)
        if len(content) > MAX_LINE_BYTES:
            raise DataError(
                f"{fields.path}: expected a document of at most {MAX_LINE_BYTES >> 20} MB, got a larger file; set per: line or paragraph"
            )
        yield decoded(content.removeprefix(codecs.BOM_UTF8), fields.path, 0), f"{fields.path}:0"
        return
    if fields.per == "line":
        for number, offset, line in lines(file, fields.path):
            yield decoded(line.rstrip(b"\r\n"), fields.path, offset), f"{fields.path}:{number}"
        return
    paragraph: list[bytes] = []
    first, begin = 1, 0
    for number, offset, line in lines(file, fields.path):
        if line.strip():
            if not paragraph:
                first, begin = number, offset
            paragraph.append(line)
        elif paragraph:
            yield decoded(b"".join(paragraph).rstrip(), fields.path, begin), f"{fields.path}:{first}"
            paragraph = []
    if paragraph:
        yield decoded(b"".join(paragraph).rstrip(), fields.path, begin), f"{fields.path}:{first}"


FORMAT = Format("text", (".txt", ".text", ".md"), read)
