"""A conversation with a person at a terminal, or with a pipe, line by line."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from shared.data.encoding import text_lines


def talk(answer: Callable[[list[str]], str]) -> None:
    """Reads turns from standard input, a line each, and prints an answer to each, until Ctrl-D or the end of a file.

    Args:
        answer: see `exchanges`.
    """
    for _, answered in exchanges(answer):
        print(f"bot: {answered}", flush=True)
    print()


def exchanges(answer: Callable[[list[str]], str]) -> Iterator[tuple[str, str]]:
    """Each turn that is read from standard input, a line each, with the answer to it.

    Blank lines are passed over. A pipe or a file is read by `text_lines`; what a terminal cannot decode is replaced.

    Args:
        answer: gives the answer to the turns so far, the last of which was just read.
    """
    turns: list[str] = []
    for line in map(str.strip, typed_lines("you: ") if sys.stdin.isatty() else text_lines(sys.stdin.buffer)):
        if line:
            turns += [line, " ".join(answer([*turns, line]).split())]
            yield line, turns[-1]


def typed_lines(prompt: str) -> Iterator[str]:
    """The lines that a person types, until Ctrl-D."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives `input` the keys that edit a line and fetch earlier ones
    sys.stdin.reconfigure(errors="replace")
    with contextlib.suppress(EOFError):
        while True:
            yield input(prompt)
