"""Models on disk."""

from pathlib import Path
from typing import Any

import keras


def read_model(path: Path, **arguments: Any) -> keras.Model:
    """Reads a .keras file."""
    return keras.saving.load_model(path, **arguments)
