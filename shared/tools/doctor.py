"""Report of backends, data and disk space, with fixes."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from shared.backends.choice import BACKENDS, install_command, installed_backends
from shared.data.catalogue import DATA_SETS, find_data_set
from shared.data.places import data_directory
from shared.tools.project import data_sets_of, recipe_paths

PROBE = """
import json, sys
import keras
from shared.backends.runtime import backend_version, device_name
keras.ops.convert_to_numpy(keras.ops.ones(2) + 1)
print(json.dumps([backend_version(), device_name(), keras.__version__]))
"""


def report_backends(tried: bool) -> bool:
    """Prints a line for each backend; returns whether one works, or is installed where they are not tried."""
    works = False
    for name in BACKENDS:
        if name not in installed_backends():
            print(f"  {name:<11} not installed     fix: {install_command(name)}")
            continue
        problem, fact = try_backend(name) if tried else (None, installed_version(name))
        if problem:
            print(f'  {name:<11} broken: {problem}     fix: pip install --force-reinstall "{name}" -c constraints.txt')
        else:
            print(f"  {name:<11} {fact}")
            works = True
    if works and not tried:
        print("  not tried: recipes doctor --backends computes on each, and names its device")
    return works


def installed_version(backend: str) -> str:
    """The version of a backend that is installed."""
    for package in (backend, f"{backend}-cpu"):
        if list(importlib.metadata.distributions(name=package)):
            return importlib.metadata.version(package)
    return "installed"


def try_backend(name: str) -> tuple[str | None, str]:
    """Computes on a backend in a process of its own: what is wrong with it, if anything, and what it is."""
    environment = os.environ | {"KERAS_BACKEND": name, "TF_CPP_MIN_LOG_LEVEL": "3"}
    probe = subprocess.run(
        [sys.executable, "-c", PROBE], env=environment, capture_output=True, encoding="utf-8", errors="replace"
    )
    if probe.returncode:
        return (probe.stderr.strip().splitlines() or ["it died"])[-1], ""
    version, device, keras_version = json.loads(probe.stdout.splitlines()[-1])
    return None, f"{version} on {device}, Keras {keras_version}"


def report_data(directory: Path | None) -> None:
    """Prints where data are looked for, and for each data set whether it is there, how to get it, and its recipes."""
    folder = data_directory(directory)
    print(f"data in {folder} (--data-dir, else KERAS_RECIPES_DATA, else ~/.cache/keras-recipes)")
    recipes = {path.stem: data_sets_of(path) for path in recipe_paths()}
    for data_set in DATA_SETS:
        users = [name for name, sets in recipes.items() if data_set in sets]
        found = find_data_set(data_set, folder)
        print(f"  {data_set.name:<16} {found.remark:<37} {', '.join(users)}")
        if found.place:
            print(f"  {'':<16} {found.place}")
        if found.fix:
            print(f"  {'':<16} fix: {found.fix}")
    known = {data_set.name for data_set in DATA_SETS}
    others = sorted(path.name for path in folder.glob("tfds/*/") if path.name not in known)
    if others:
        print(f"  also prepared by TFDS, for --data NAME: {', '.join(others)}")


def report_disk(places: dict[str, Path]) -> None:
    """Prints the free space of each directory, or of its nearest existing parent."""
    for purpose, place in places.items():
        there = next(path for path in (place.absolute(), *place.absolute().parents) if path.exists())
        writable = "" if os.access(there, os.W_OK) else "     not writable; fix: choose another directory"
        print(f"  {purpose:<8} {place}: {shutil.disk_usage(there).free / 1e9:,.1f} GB free{writable}")
