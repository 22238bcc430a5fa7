"""Where data are kept, and what tells one set of files from another."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from shared.errors import UsageError


def data_directory(chosen: Path | None) -> Path:
    """Where data are looked for: `chosen` (`--data-dir`), else KERAS_RECIPES_DATA, else ~/.cache/keras-recipes."""
    return chosen or Path(os.environ.get("KERAS_RECIPES_DATA") or Path.home() / ".cache" / "keras-recipes")


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint_of(files: Iterable[Path], root: Path, *facts: Any) -> str:
    """A short hash of files: of their paths below `root` and of their contents.

    Contents, not sizes and times: these survive a change when a folder is copied, restored or synchronized, and network
    disks keep clocks of their own. Reading the files takes less time than reading what is decoded from them.

    Args:
        files: in any order.
        root: what their paths are relative to, so that a folder that was moved keeps its fingerprint.
        facts: what else decides what is made of the files, such as the size that images are cut to; JSON values.

    Raises:
        UsageError: a file cannot be read.
    """
    try:
        contents = sorted((path.relative_to(root).as_posix(), file_hash(path)) for path in files)
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be read ({error.strerror})") from None
    return hashlib.sha256(json.dumps([contents, *facts]).encode()).hexdigest()[:12]


def left_by_system(path: Path) -> bool:
    """Whether a file is none of the user's: what macOS, Windows, Jupyter and version control leave between others.

    Args:
        path: relative to the user's folder, which may itself lie in a hidden one.
    """
    hidden = any(part.startswith(".") and part not in (".", "..") for part in path.parts)
    return hidden or "__MACOSX" in path.parts or path.name.lower() in ("thumbs.db", "desktop.ini")


class PassedOver:
    """Files, or lines of files, that are not used, counted by reason."""

    def __init__(self) -> None:
        self.places: dict[str, list[str]] = {}

    def add(self, reason: str, place: Path | str) -> None:
        self.places.setdefault(reason, []).append(str(place))

    def where(self, holds: Callable[[str], bool]) -> "PassedOver":
        """Those of which the place meets a condition."""
        some = PassedOver()
        for reason, places in self.places.items():
            for place in filter(holds, places):
                some.add(reason, place)
        return some

    def __len__(self) -> int:
        return sum(map(len, self.places.values()))

    def __str__(self) -> str:
        """One line, the first place of each reason named."""
        parts = [
            f"{len(places):,} {reason} ({places[0]}{', …' if len(places) > 1 else ''})"
            for reason, places in self.places.items()
        ]
        return f"passed over {len(self):,}: {'; '.join(parts)}" if parts else "nothing passed over"
