"""What a comparison asks of a process of its own."""

import os
import signal
import sys
import threading
from typing import NamedTuple


class Job(NamedTuple):
    """One task on one backend."""

    recipe: str
    task: str
    """"prepare": check the options and say what they mean; "agree": train the first steps;
    "layers": each layer forward and back; "measure": the whole recipe."""
    directory: str
    """Of what the worker leaves: answer.json, layers.npz and, in run, the run."""
    options: list[str]
    """Those of the recipe."""
    steps: int = 0
    """For "agree": how many."""
    native: str | None = None
    """File of a native baseline, which then trains in place of the Keras model."""
    reference: str | None = None
    """For "layers": directory of the backend whose inputs each layer is given."""


def end_with_parent() -> None:
    """Kills this process and those that it started once its standard input ends, which the parent holds open.

    However the parent ends, also by SIGKILL, so that nothing goes on training for nobody.
    """

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        leads_group = os.getpgrp() == os.getpid()
        (os.killpg if leads_group else os.kill)(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()
