"""Talking with a person, or with a pipe, line by line."""

import contextlib
import io
import sys
from collections.abc import Callable


def talk(answer: Callable[[list[str]], str]) -> None:
    """Reads turns from standard input, a line each, and prints an answer to each, until Ctrl-D or the end of a file.

    Blank lines are passed over. What is no text in the encoding of the terminal is replaced, not refused.

    Args:
        answer: gives the answer to the turns so far, the last of which was just read.
    """
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives `input` the keys that edit a line and fetch earlier ones
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    prompt = "you: " if sys.stdin.isatty() else ""
    turns: list[str] = []
    with contextlib.suppress(EOFError):
        while True:
            if line := input(prompt).strip():
                turns += [line, " ".join(answer([*turns, line]).split())]
                print(f"bot: {turns[-1]}", flush=True)
    print()
