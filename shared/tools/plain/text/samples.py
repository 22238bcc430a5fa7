"""Generated text as files."""

import time
from collections.abc import Iterator
from pathlib import Path


def timed_text(pieces: Iterator[str]) -> tuple[str, float | None]:
    """A generated text, and pieces per second, without the first, which compiles."""
    first, start = next(pieces, ""), time.perf_counter()
    others = list(pieces)
    return "".join([first, *others]), len(others) / (time.perf_counter() - start)


def save_text(path: Path, text: str) -> None:
    """Writes a text to a file, and creates its folder."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")
