"""Cache of decoded data: memory-mapped NumPy arrays, verified by size and hash."""

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from shared.data.places import file_hash
from shared.errors import UsageError
from shared.files import cache_directory


@contextlib.contextmanager
def writing_to_cache() -> Iterator[None]:
    """Context in which a failure to write to the cache becomes a UsageError."""
    try:
        yield
    except OSError as error:
        remedy = "make room there, or set KERAS_RECIPES_CACHE to another directory"
        reason = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
        raise UsageError(f"cannot write to the cache {cache_directory()} ({reason}): {remedy}") from None


def write_arrays(directory: Path, arrays: dict[str, np.ndarray], facts: dict) -> None:
    """Writes arrays and JSON facts to a new directory, atomically.

    If several processes write it at once, on any machines, the first to finish wins.

    Raises:
        TypeError: an array has a dtype that .npy files do not support, such as bfloat16.
    """
    for name, array in arrays.items():
        if np.lib.format.descr_to_dtype(np.lib.format.dtype_to_descr(array.dtype)) != array.dtype:
            raise TypeError(f"{name} is of type {array.dtype}, which a .npy file does not keep: convert it to float32")
    unfinished = directory.with_name(f".unfinished-{uuid.uuid4().hex}-{directory.name}")
    try:
        unfinished.mkdir(parents=True)
        files = {}
        for name, array in arrays.items():
            path = unfinished / f"{name}.npy"
            np.save(path, array, allow_pickle=False)
            files[path.name] = {"bytes": path.stat().st_size, "sha256": file_hash(path)}
        (unfinished / "manifest.json").write_text(
            json.dumps({"files": files, "facts": facts}, indent=1), encoding="utf-8"
        )
        try:
            os.rename(unfinished, directory)
        except OSError:
            if not directory.exists():  # else another process was faster
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def read_arrays(directory: Path) -> tuple[dict[str, np.ndarray], dict]:
    """Memory-maps the arrays of `write_arrays`, read-only.

    Raises:
        UsageError: a file is missing, truncated or changed.
    """
    try:
        manifest = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
        for name, expected in manifest["files"].items():
            path = directory / name
            if path.stat().st_size != expected["bytes"] or file_hash(path) != expected["sha256"]:
                raise ValueError(f"{name} is not the file that was written")
        arrays = {Path(name).stem: np.load(directory / name, mmap_mode="r") for name in manifest["files"]}
        return arrays, manifest["facts"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"the data cache {directory} is damaged ({error}): delete that folder and run again") from None


def cached_arrays(
    directory: Path, make: Callable[[], tuple[dict[str, np.ndarray], dict]]
) -> tuple[dict[str, np.ndarray], dict]:
    """The arrays and facts in `directory`; if it does not exist, the result of `make` is written there first."""
    if not directory.exists():
        with writing_to_cache():  # before the work, not after it
            directory.parent.mkdir(parents=True, exist_ok=True)
        arrays, facts = make()
        with writing_to_cache():
            write_arrays(directory, arrays, facts)
    return read_arrays(directory)
