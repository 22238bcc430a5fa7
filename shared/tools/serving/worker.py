"""The thread that owns a served model: it opens the model and answers requests, one after another.

A Keras model is not safe to use from several threads: compiled functions are cached by shape, generators of random
numbers have a state, Keras keeps settings such as the dtype policy per thread. In a thread of its own a model is used
as by `recipes predict`, whatever the backend.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

Model = TypeVar("Model")


class Abandoned(Exception):
    """Nobody waits for a computation any more."""


class Computation:
    """A computation in the worker's thread, whose results arrive in the event loop as they are computed.

    Args:
        compute: computes, in the worker's thread, and gives its results to `emit` of this computation.
    """

    def __init__(self, compute: Callable[["Computation"], None]):
        self.compute = compute
        self.abandoned = False
        self.loop = asyncio.get_running_loop()
        self.arrived: asyncio.Queue[Any] = asyncio.Queue()

    def abandon(self) -> None:
        """Nobody waits any more: the computation does not begin, or ends when it next checks."""
        self.abandoned = True

    def check(self) -> None:
        """Raises Abandoned where nobody waits any more."""
        if self.abandoned:
            raise Abandoned

    def emit(self, result: Any) -> None:
        """Hands a result to the event loop, or raises Abandoned."""
        self.check()
        self.deliver(result)

    def run(self) -> None:
        """Computes, in the worker's thread."""
        try:
            self.check()
            self.compute(self)
            end = None
        except Abandoned:
            end = None
        except BaseException as error:  # noqa: BLE001 - whatever it is, the next request is answered
            end = error if isinstance(error, Exception) else RuntimeError(repr(error))
        self.deliver(end)

    def deliver(self, result: Any) -> None:
        """Hands a result, an exception, or the end, which is None, to the event loop, unless that is closed."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.arrived.put_nowait, result)

    async def results(self, deadline: float) -> AsyncIterator[Any]:
        """The results; raises what the computation raised.

        Args:
            deadline: by the loop's clock.

        Raises:
            TimeoutError: the next result has not arrived before.
        """
        while True:
            if self.loop.time() > deadline:  # also where results arrive faster than they are asked for
                raise TimeoutError
            async with asyncio.timeout_at(deadline):
                result = await self.arrived.get()
            if result is None:
                return
            if isinstance(result, Exception):
                raise result
            yield result


class Worker(Generic[Model]):
    """A thread that owns a model.

    Args:
        open_model: opens the model, in the thread.
    """

    def __init__(self, open_model: Callable[[], Model]):
        self.jobs: queue.SimpleQueue[Computation | None] = queue.SimpleQueue()
        self.opened: Future[Model] = Future()
        self.thread = threading.Thread(target=self.work, args=(open_model,), name="model")
        self.thread.start()

    @property
    def model(self) -> Model:
        """The model; waits until it is open, and raises what opening it raised."""
        return self.opened.result()

    def work(self, open_model: Callable[[], Model]) -> None:
        """What the thread does."""
        try:
            self.opened.set_result(open_model())
        except BaseException as error:  # noqa: BLE001 - raised again where the model is asked for
            self.opened.set_exception(error)
            return
        for computation in iter(self.jobs.get, None):
            computation.run()

    def start(self, compute: Callable[[Computation], None]) -> Computation:
        """Queues a computation, see `Computation`."""
        computation = Computation(compute)
        self.jobs.put(computation)
        return computation

    def close(self) -> None:
        """Ends the thread after the computations that are queued."""
        self.jobs.put(None)
        self.thread.join()
