"""Text files as people have them: in UTF-8, or in the encoding that their byte order mark declares."""

import codecs
import io
from collections.abc import Iterator
from pathlib import Path

from shared.errors import UsageError

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


def declared_encoding(start: bytes) -> tuple[str, int]:
    """The encoding that a byte order mark at the start of a file declares, and its length; else UTF-8 and 0."""
    return next(((name, len(mark)) for mark, name in BYTE_ORDER_MARKS.items() if start.startswith(mark)), ("utf-8", 0))


def text_blocks(path: Path, size: int = 1 << 20) -> Iterator[str]:
    """A text file, so many bytes at a time; ends of lines become "\\n", a byte order mark is left out.

    Raises:
        UsageError: the file cannot be read, or is not in the encoding that it declares.
    """
    try:
        with open(path, "rb") as file:
            yield from decoded_blocks(file, path, size)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})") from None


def read_text(path: Path) -> str:
    """A text file as a whole; see `text_blocks`."""
    return "".join(text_blocks(path))


def decoded_text(content: bytes, path: Path) -> str:
    """What is in a text file, such as one out of an archive; see `text_blocks`. `path` is what an error names."""
    return "".join(decoded_blocks(io.BytesIO(content), path, max(1, len(content))))


def decoded_blocks(file: io.BufferedIOBase, path: Path, size: int) -> Iterator[str]:
    """The text of an open file in blocks; see `text_blocks`."""
    encoding, mark = declared_encoding(file.read(4))
    file.seek(mark)
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(encoding)(), translate=True)
    lines = 1
    block = b"start"
    while block:
        block = file.read(size)
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            line = lines + error.object[: error.start].decode(encoding).count("\n")
            name = encoding.upper()
            raise UsageError(
                f"{path}, line {line:,}: byte 0x{error.object[error.start]:02x} is not {name}: save the file in UTF-8"
            ) from None
        if "\0" in text:
            line = lines + text.partition("\0")[0].count("\n")
            raise UsageError(f"{path}, line {line:,}: a null byte, so this is no text in UTF-8: save it in UTF-8")
        lines += text.count("\n")
        yield text
