"""The image files that a user names for a trained model, one by one or by their folder."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from shared.data.images.files import open_picture
from shared.data.images.folders import picture_files
from shared.errors import UsageError


def chosen_files(paths: Iterable[Path]) -> list[Path]:
    """The files that are named, and the image files of folders that are.

    Raises:
        UsageError: a folder holds no image files.
    """
    files = []
    for path in paths:
        inside = picture_files(path) if path.is_dir() else [path]
        if not inside:
            raise UsageError(f"{path} holds no image files")
        files += inside
    return files


def chosen_pictures(
    paths: Iterable[Path], read: Callable[[Path], Any] = open_picture
) -> tuple[dict[Path, Any], list[str]]:
    """Opens image files and those of folders; what cannot be read is named on stderr, so that the rest is answered.

    Args:
        paths: of files and folders.
        read: what makes of a file what is kept of it; a ValueError says why it cannot.

    Returns:
        The pictures by path, and what is wrong with each file that cannot be read, for `refuse_unread`.

    Raises:
        UsageError: nothing can be read.
    """
    pictures, unread = {}, []
    for path in chosen_files(paths):
        try:
            pictures[path] = read(path)
        except ValueError as error:
            unread.append(f"{path} cannot be read as an image ({error})")
            print(f"skipped: {unread[-1]}", file=sys.stderr)
    if not pictures:
        refuse_unread(unread)
    return pictures, unread


def refuse_unread(unread: list[str]) -> None:
    """Raises a UsageError if files could not be read, to be called when the others were answered."""
    if unread:
        raise UsageError(unread[0] + (f", nor can {len(unread) - 1} more files" if len(unread) > 1 else ""))
