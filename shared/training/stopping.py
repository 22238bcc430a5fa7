"""Graceful stop on Ctrl-C or SIGTERM."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator


class StopRequest:
    """Request to stop training after the current step and a checkpoint."""

    def __init__(self):
        self.asked = False

    @contextlib.contextmanager
    def by_signals(self) -> Iterator[None]:
        """Context in which the first Ctrl-C or SIGTERM requests a stop, and the second stops at once; main thread only.

        Raises:
            KeyboardInterrupt: at the second signal.
        """

        def stop(number, frame):
            if self.asked:
                raise KeyboardInterrupt
            self.asked = True
            print("stopping after this step, to save; once more to stop at once", file=sys.stderr)

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
