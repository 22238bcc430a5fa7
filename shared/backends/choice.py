"""Which backend Keras will use, checked before Keras is imported; of itself standard library only."""

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

from shared.errors import UsageError

BACKENDS = ("jax", "torch", "tensorflow")
UNNEEDED = ("IPython", "matplotlib", "pandas", "sklearn")
"""What Keras imports wherever it is installed, for features that nothing here uses."""


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


def install_command(extra: str) -> str:
    """The command that installs an extra of this project: of the checkout that this file is in, else of the wheel."""
    file = Path(globals().get("__file__", "notebook")).resolve()  # a notebook has no file
    if any((folder / "constraints.txt").exists() for folder in file.parents[2:3]):
        return f'pip install -c constraints.txt -e ".[{extra}]"'
    return f'pip install "keras-recipes[{extra}]"'


def require_extra(extra: str, *modules: str) -> None:
    """Checks that modules that an extra of this project installs are there, without importing them.

    Raises:
        UsageError: a module is missing; suggests to install the extra.
    """
    specs = {name: importlib.util.find_spec(name) for name in modules}
    # A directory that is named like a package, such as the wandb/ that W&B leaves, is found too, without origin.
    missing = [name for name, spec in specs.items() if spec is None or spec.origin is None]
    if missing:
        raise UsageError(f"not installed: {', '.join(missing)}: run  {install_command(extra)}")


def settings_path() -> Path:
    """Where Keras looks for its settings."""
    home = Path.home() if os.access(Path.home(), os.W_OK) else Path("/tmp")
    return Path(os.environ.get("KERAS_HOME", home / ".keras")).expanduser() / "keras.json"


def read_settings() -> dict[str, Any]:
    """What keras.json says; nothing where there is none.

    Raises:
        UsageError: Keras would not read it, or fail on it with a page of traceback.
    """
    path = settings_path()
    try:
        settings = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({error}): correct or delete it") from None
    if not isinstance(settings, dict):
        raise UsageError(f"{path} holds no settings by name: correct or delete it")
    choices = {"floatx": ("float16", "float32", "float64"), "image_data_format": ("channels_last", "channels_first")}
    for name, known in choices.items():
        if settings.get(name, known[0]) not in known:
            raise UsageError(f"{name} in {path} must be one of {', '.join(known)}, not {settings[name]!r}")
    if not isinstance(settings.get("epsilon", 1e-7), float):
        raise UsageError(f"epsilon in {path} must be a number such as 1e-7, not {settings['epsilon']!r}")
    return settings


def chosen_backend() -> tuple[str, str]:
    """The backend that Keras will choose, and why: KERAS_BACKEND, else keras.json, else TensorFlow.

    Raises:
        UsageError: keras.json is malformed, which ends Keras whatever KERAS_BACKEND is.
    """
    settings = read_settings()
    if name := os.environ.get("KERAS_BACKEND"):
        return name, f"KERAS_BACKEND={name}"
    if "backend" in settings:
        return str(settings["backend"]), f"backend {settings['backend']} in {settings_path()}"
    return "tensorflow", "Keras's choice where KERAS_BACKEND is not set"


def require_backend() -> None:
    """Ends the process with one line and exit code 2 if Keras or the chosen backend cannot be imported.

    Recipes call this before `import keras`, which would fail with a page of traceback. If nothing is wrong, Keras is
    imported, without what it would import only because it is installed; see `import_keras_alone`.
    """
    try:
        name, reason = chosen_backend()
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    installed = installed_backends()
    here = f"installed here: {', '.join(installed)}" if installed else "none is installed here"
    if not importlib.util.find_spec("keras"):
        problem = f"Keras is not installed: run  {install_command('all')}"
    elif name not in BACKENDS:
        problem = f"{reason} is not one of {', '.join(BACKENDS)} ({here})"
    elif name not in installed:
        why = "" if os.environ.get("KERAS_BACKEND") else f" ({reason})"
        remedy = f"set KERAS_BACKEND={installed[0]}, or run" if installed else "run"
        problem = f"the backend {name}{why} is not installed; {here}: {remedy}  {install_command(name)}"
    else:
        import_keras_alone(name)
        return
    print(f"error: {problem}", file=sys.stderr)
    raise SystemExit(2)


def import_keras_alone(backend: str) -> None:
    """Imports Keras as if other backends and the libraries of `UNNEEDED` were not installed, which takes half as long.

    Afterwards they can be imported as ever, but this process's Keras takes no data frames, makes no scikit-learn
    wrappers and draws no image galleries.
    """
    others = [name for name in ("jax", "torch") if name != backend]
    hidden = [name for name in (*UNNEEDED, *others) if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # an import now fails as if it were not installed
    try:
        importlib.import_module("keras")
    finally:
        for name in hidden:
            del sys.modules[name]
