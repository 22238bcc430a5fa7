"""Text files in UTF-8."""

from pathlib import Path

from shared.errors import UsageError


def decoded_text(content: bytes, path: Path) -> str:
    """The text of a file in UTF-8, without its byte order mark.

    Args:
        content: what is in the file.
        path: what the error names.

    Raises:
        UsageError: it is in another encoding.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise not_in_utf8(path, error.start, error.object[error.start]) from None


def not_in_utf8(path: Path, place: int, byte: int) -> UsageError:
    """What to raise where a byte at a place of a file, counted from 0, is no UTF-8."""
    return UsageError(f"{path} is not in UTF-8: byte {place:,} is 0x{byte:02x}; save it in UTF-8")
