"""The commands `keras-recipes` and `recipes`.

The wheel installs no other top-level package than this one: it holds `shared`, `recipes` and what they read in the
folder source/, which comes first on the path of the command and of the processes that it starts. A checkout has them on
the path already.
"""

import os
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parent / "source"


def main() -> None:
    """Runs the command."""
    if SOURCE.exists():
        sys.path.insert(0, str(SOURCE))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH")]))
    from shared.tools.cli import main as run_command

    run_command()


if __name__ == "__main__":
    main()
