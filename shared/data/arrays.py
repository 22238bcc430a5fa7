"""A cache of decoded data: NumPy arrays in files, mapped into memory, checked by size and hash."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from shared.errors import UsageError


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_arrays(directory: Path, arrays: dict[str, np.ndarray], facts: dict) -> None:
    """Writes arrays and JSON facts to a new directory, which appears whole or not at all.

    Raises:
        TypeError: an array is of a type that NumPy's files do not know, such as bfloat16: as float32 it could be kept.
    """
    for name, array in arrays.items():
        if np.lib.format.descr_to_dtype(np.lib.format.dtype_to_descr(array.dtype)) != array.dtype:
            raise TypeError(f"{name} is of type {array.dtype}, which a .npy file does not keep: convert it to float32")
    unfinished = directory.with_name(f".unfinished-{os.getpid()}-{directory.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
        files = {}
        for name, array in arrays.items():
            path = unfinished / f"{name}.npy"
            np.save(path, array, allow_pickle=False)
            files[path.name] = {"bytes": path.stat().st_size, "sha256": file_hash(path)}
        (unfinished / "manifest.json").write_text(json.dumps({"files": files, "facts": facts}, indent=1))
        if not directory.exists():  # another process may have been quicker
            os.rename(unfinished, directory)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def read_arrays(directory: Path) -> tuple[dict[str, np.ndarray], dict]:
    """Maps what `write_arrays` wrote, read-only.

    Raises:
        UsageError: a file is missing, cut short or changed.
    """
    try:
        manifest = json.loads((directory / "manifest.json").read_text())
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
    """The arrays and facts in `directory`; where it does not exist, what `make` returns is written there first."""
    if not directory.exists():
        write_arrays(directory, *make())
    return read_arrays(directory)
