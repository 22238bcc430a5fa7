"""Packages that only a part of the commands needs."""

import importlib.util

from shared.errors import UsageError


def require_extra(extra: str, *modules: str) -> None:
    """Checks that what an extra of this project installs is there, without importing it.

    Raises:
        UsageError: a module is missing; suggests to install the extra.
    """
    missing = [name for name in modules if not importlib.util.find_spec(name)]
    if missing:
        command = f'pip install -c constraints.txt -e ".[{extra}]"'
        raise UsageError(f"not installed: {', '.join(missing)}: run  {command}")
