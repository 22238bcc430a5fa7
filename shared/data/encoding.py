"""Reading of text files, in UTF-8 or in the encoding that their byte order mark declares."""

import codecs
import contextlib
import gzip
import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from shared.errors import UsageError

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


GZIP = b"\x1f\x8b"


DOCUMENTS = {
    b"PK\x03\x04": "a zip archive or an office document",
    b"%PDF-": "a PDF",
    b"{\\rtf": "a document in RTF",
    b"\xd0\xcf\x11\xe0": "an office document",
    b"\xfd7zXZ": "an xz archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"BZh": "a bzip2 archive",
    b"PAR1": "a Parquet table",
    b"SQLite f": "an SQLite database",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
}
"""Magic bytes of formats that users mistake for text files."""


DAMAGED_ARCHIVE = (
    OSError, EOFError, KeyError, ValueError, NotImplementedError, RuntimeError, zlib.error, zipfile.BadZipFile,
)  # fmt: skip
"""Exceptions of `gzip` and `zipfile` for files that are damaged, encrypted or compressed by unsupported methods."""


def declared_encoding(start: bytes) -> tuple[str, int]:
    """The encoding that a byte order mark at the start of a file declares, and its length; else UTF-8 and 0."""
    return next(((name, len(mark)) for mark, name in BYTE_ORDER_MARKS.items() if start.startswith(mark)), ("utf-8", 0))


def kind_of_document(start: bytes) -> str | None:
    """Kind of document, archive or image by the first bytes of a file; None for text."""
    return next((kind for mark, kind in DOCUMENTS.items() if start.startswith(mark)), None)


@contextlib.contextmanager
def unpacked(path: Path) -> Iterator[io.BufferedIOBase]:
    """Opens a file for reading bytes, decompressed if it is gzip.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == GZIP
            file.seek(0)
            yield gzip.GzipFile(fileobj=file) if packed else file
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error})") from None


def is_text_file(path: Path) -> bool:
    """Whether a file is text by its first bytes: a byte order mark, or neither null bytes nor the start of a document.

    Raises:
        UsageError: it cannot be read.
    """
    with unpacked(path) as file:
        start = file.read(4096)
    return declared_encoding(start)[1] > 0 or (b"\0" not in start and kind_of_document(start) is None)


def text_blocks(path: Path, size: int = 1 << 20) -> Iterator[str]:
    """Blocks of a text file of `size` bytes; line ends become "\\n", a byte order mark is removed.

    Gzip files are decompressed, whatever their name.

    Raises:
        UsageError: the file cannot be read, or not in the encoding that it declares.
    """
    with unpacked(path) as file:
        yield from decoded_blocks(file.read, path, size)


def read_text(path: Path) -> str:
    """Content of a text file; see `text_blocks`."""
    return "".join(text_blocks(path))


def decoded_text(content: bytes, path: Path) -> str:
    """Text of a file's bytes, such as a member of an archive; see `text_blocks`. `path` is for error messages."""
    return "".join(decoded_blocks(io.BytesIO(content).read, path, max(1, len(content))))


def decoded_blocks(read: Callable[[int], bytes], path: Path, size: int) -> Iterator[str]:
    """Text blocks of an open file, read by `read(size)`; see `text_blocks`."""
    block = read(max(size, 8))
    if kind := kind_of_document(block):
        raise UsageError(f"{path} is {kind}, not a text file: unpack it, or save it as plain text in UTF-8")
    encoding, mark = declared_encoding(block)
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(encoding)(), translate=True)
    lines, block, ended = 1, block[mark:], not block
    while True:
        try:
            text = decoder.decode(block, final=ended)
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
        if ended:
            return
        block = read(size)
        ended = not block


def text_lines(file: io.BufferedIOBase) -> Iterator[str]:
    """Lines of an open file, such as standard input, each as soon as it is complete, for interactive use.

    In the encoding that a byte order mark declares, else UTF-8. Undecodable bytes are replaced, so that each line gets
    its answer.
    """
    block = file.readline()
    encoding, mark = declared_encoding(block)
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(encoding)("replace"), translate=True)
    block, rest = block[mark:], ""
    while block:
        *lines, rest = (rest + decoder.decode(block)).split("\n")
        yield from lines
        block = file.readline()
    rest += decoder.decode(b"", final=True)
    if rest:
        yield from rest.removesuffix("\n").split("\n")


def replace_surrogates(text: str) -> str:
    """The text with lone surrogates, which cannot be encoded, replaced by question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")
