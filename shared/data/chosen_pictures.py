"""The image files that a user names for a trained model, in person or by their folder."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image

from shared.data.folders import picture_files
from shared.data.pictures import open_picture
from shared.data.places import left_by_system
from shared.errors import UsageError


def chosen_files(paths: Iterable[Path]) -> list[Path]:
    """The files that are named, and the image files of folders that are.

    Raises:
        UsageError: a folder holds no image files.
    """
    files = []
    for path in paths:
        inside = [file for file in picture_files(path) if not left_by_system(file.relative_to(path))]
        if path.is_dir() and not inside:
            raise UsageError(f"{path} holds no image files")
        files += inside if path.is_dir() else [path]
    return files


class ChosenPictures:
    """Opens image files one by one; those that cannot be read are named on stderr and left out."""

    def __init__(self, paths: Iterable[Path]):
        self.files = chosen_files(paths)
        self.bad: list[str] = []

    def __iter__(self) -> Iterator[tuple[Path, Image.Image]]:
        self.bad = []
        for path in self.files:
            try:
                yield path, open_picture(path)
            except ValueError as error:
                self.bad.append(f"{path} cannot be read as an image ({error})")
                print(f"skipped: {self.bad[-1]}", file=sys.stderr)

    def raise_if_bad(self) -> None:
        """Raises a UsageError if a file could not be read, after the others were answered."""
        if self.bad:
            more = f", and {len(self.bad) - 1} more files" if len(self.bad) > 1 else ""
            raise UsageError(
                f"{self.bad[0]}{more}: {len(self.files) - len(self.bad)} of {len(self.files)} files were answered"
            )
