"""The data directory, hashes and fingerprints of files, and the report of skipped files."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from shared.errors import UsageError


def data_directory(chosen: Path | None) -> Path:
    """Data directory: `chosen` (`--data-dir`), else KERAS_RECIPES_DATA, else ~/.cache/keras-recipes."""
    return chosen or Path(os.environ.get("KERAS_RECIPES_DATA") or Path.home() / ".cache" / "keras-recipes")


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint_of(files: Iterable[Path], root: Path, *facts: Any) -> str:
    """Fingerprint: a short hash of the relative paths and the contents of files.

    Contents, not sizes and times, which may stay equal when a folder is copied, restored or synchronized. Hashing the
    files takes less time than reading the decoded arrays.

    Args:
        files: in any order.
        root: folder that paths are relative to, so that a folder that was moved keeps its fingerprint.
        facts: further inputs of the decoding, such as the image size; JSON values.

    Raises:
        UsageError: a file cannot be read.
    """
    try:
        contents = sorted((path.relative_to(root).as_posix(), file_hash(path)) for path in files)
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be read ({error.strerror})") from None
    return hashlib.sha256(json.dumps([contents, *facts]).encode()).hexdigest()[:12]


def left_by_system(path: Path) -> bool:
    """Whether a file was left by macOS, Windows, Jupyter or version control.

    Args:
        path: relative to the user's folder, which may itself be in a hidden one.
    """
    hidden = any(part.startswith(".") and part not in (".", "..") for part in path.parts)
    return hidden or "__MACOSX" in path.parts or path.name.lower() in ("thumbs.db", "desktop.ini")


class PassedOver:
    """Skipped files, or lines of files, by reason."""

    def __init__(self) -> None:
        self.places: dict[str, list[str]] = {}

    def add(self, reason: str, place: Path | str) -> None:
        self.places.setdefault(reason, []).append(str(place))

    def where(self, holds: Callable[[str], bool]) -> "PassedOver":
        """The entries whose place meets a condition."""
        some = PassedOver()
        for reason, places in self.places.items():
            for place in filter(holds, places):
                some.add(reason, place)
        return some

    def __len__(self) -> int:
        return sum(map(len, self.places.values()))

    def __str__(self) -> str:
        """One line, with the first place of each reason."""
        parts = [
            f"{len(places):,} {reason} ({places[0]}{', …' if len(places) > 1 else ''})"
            for reason, places in self.places.items()
        ]
        return f"passed over {len(self):,}: {'; '.join(parts)}" if parts else "nothing passed over"
