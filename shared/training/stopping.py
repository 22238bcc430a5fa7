"""A clean stop by Ctrl-C or SIGTERM."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator


class StopRequest:
    """Whether a signal asked training to stop, which it does after the current step, once it has saved."""

    def __init__(self):
        self.asked = False

    @contextlib.contextmanager
    def by_signals(self) -> Iterator[None]:
        """Lets the first Ctrl-C or SIGTERM ask for a stop, and the second stop at once; only in the main thread.

        Raises:
            KeyboardInterrupt: at the second.
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
