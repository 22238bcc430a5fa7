"""Chat on standard input, line by line."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from shared.data.encoding import text_lines


def talk(answer: Callable[[list[str]], str]) -> None:
    """Interactive chat: reads one turn per line from standard input and prints each answer, until end of file.

    Args:
        answer: see `exchanges`.
    """
    for _, answered in exchanges(answer):
        print(f"bot: {answered}", flush=True)
    print()


def exchanges(answer: Callable[[list[str]], str]) -> Iterator[tuple[str, str]]:
    """Turns read from standard input, one per line, each with its answer.

    Blank lines are skipped. A pipe or a file is read by `text_lines`; undecodable characters from a terminal are
    replaced.

    Args:
        answer: function from the turns so far to the answer to the last one.
    """
    turns: list[str] = []
    for line in map(str.strip, typed_lines("you: ") if sys.stdin.isatty() else text_lines(sys.stdin.buffer)):
        if line:
            turns += [line, " ".join(answer([*turns, line]).split())]
            yield line, turns[-1]


def typed_lines(prompt: str) -> Iterator[str]:
    """Lines typed at a prompt, until Ctrl-D."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - adds line editing and history to `input`
    sys.stdin.reconfigure(errors="replace")
    with contextlib.suppress(EOFError):
        while True:
            yield input(prompt)
