"""The cache directory, and atomic writes: a file is either complete or not there."""

import contextlib
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path


def cache_directory() -> Path:
    """Cache directory of decoded data and compiled programs: KERAS_RECIPES_CACHE, else ~/.cache/keras-recipes."""
    return Path(os.environ.get("KERAS_RECIPES_CACHE") or Path.home() / ".cache" / "keras-recipes")


def fsync_directory(directory: Path) -> None:
    """Makes the names in `directory` survive a power cut, where the system can do that."""
    if os.name == "posix":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Atomic write: yields a temporary path beside `path`; on success syncs it and renames it to `path`.

    A failure, such as a full disk, leaves the earlier `path` unchanged and no temporary file. The temporary name keeps
    the suffix, by which Keras and matplotlib choose the format.

    Raises:
        OSError: writing failed.
    """
    temporary = path.with_name(f".unfinished-{os.getpid()}-{path.name}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_directory(path.parent)


def check_archive(path: Path) -> None:
    """Verifies the checksums of a zip archive, such as a .npz or .keras file.

    Raises:
        ValueError: it is missing, not an archive, or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # noqa: BLE001 - a damaged header can make `zipfile` raise nearly anything
        raise ValueError(str(error).partition("\n")[0] or type(error).__name__) from None
    if damaged:
        raise ValueError(f"{damaged} in it is not what was written")


def remove_unfinished(directory: Path) -> None:
    """Deletes the temporary files in `directory` of processes killed within `replacing`."""
    for path in directory.glob(".unfinished-*"):
        path.unlink(missing_ok=True)
