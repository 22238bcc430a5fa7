"""Which backend Keras will use, checked before Keras is imported; standard library only."""

import importlib.util
import json
import os
import sys
from pathlib import Path

from shared.errors import UsageError

BACKENDS = ("jax", "torch", "tensorflow")


def installed_backends() -> list[str]:
    """The backends that this Python can import, without importing them."""
    return [name for name in BACKENDS if importlib.util.find_spec(name)]


def backends_named(text: str) -> tuple[str, ...]:
    """The backends of a list such as "jax,torch", in its order.

    Raises:
        UsageError: the list is empty or names something else.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names or set(names) - set(BACKENDS):
        raise UsageError(f"--backends must be of {', '.join(BACKENDS)}, separated by commas, not {text!r}")
    return names


def chosen_backend() -> str:
    """The backend that Keras will choose: KERAS_BACKEND, else keras.json, else TensorFlow."""
    if name := os.environ.get("KERAS_BACKEND"):
        return name
    settings = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "keras.json"
    try:
        return json.loads(settings.read_text(encoding="utf-8"))["backend"]
    except (OSError, ValueError, KeyError):
        return "tensorflow"


def require_backend() -> None:
    """Ends the process with one line and exit code 2 if Keras or the chosen backend cannot be imported.

    Recipes call this before `import keras`, which would fail with a page of traceback.
    """
    name, installed = chosen_backend(), installed_backends()
    here = f"installed here: {', '.join(installed)}" if installed else "none is installed here"
    if not importlib.util.find_spec("keras"):
        problem = 'Keras is not installed: run  pip install -c constraints.txt -e ".[all]"'
    elif name not in BACKENDS:
        problem = f"KERAS_BACKEND={name} is not one of {', '.join(BACKENDS)} ({here})"
    elif name not in installed:
        unset = "" if os.environ.get("KERAS_BACKEND") else " (Keras's choice where KERAS_BACKEND is not set)"
        remedy = f"set KERAS_BACKEND={installed[0]}, or run" if installed else "run"
        problem = f'the backend {name}{unset} is not installed; {here}: {remedy}  pip install -e ".[{name}]"'
    else:
        return
    print(f"error: {problem}", file=sys.stderr)
    raise SystemExit(2)
