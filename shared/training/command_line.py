"""Command lines parsed by tyro, with one-line error messages."""

import contextlib
import io
import itertools
import sys
from typing import Any

import tyro

from shared.errors import UsageError


def parse_command_line(form: Any, arguments: list[str] | None = None, **keywords: Any) -> Any:
    """Parses a command line into a dataclass, or into one of several.

    Args:
        form: the dataclass, or a union of them.
        arguments: the arguments; None for those of the process.
        keywords: passed on to `tyro.cli`.

    Raises:
        UsageError: an unknown option or a value of the wrong type, in one line.
        SystemExit: after `--help`.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return tyro.cli(form, args=arguments, **keywords)
    except SystemExit as error:
        if not error.code:
            raise
        lines = [line.strip("│ ") for line in box.getvalue().splitlines()[1:]]
        message = " ".join(itertools.takewhile(lambda line: not line.startswith(("─", "╰")), lines))
        raise UsageError(f"{message} (see --help)") from None


def replace_what_cannot_be_shown() -> None:
    """Prints a question mark for each character that the terminal's encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
