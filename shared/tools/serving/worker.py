"""The thread that owns a served model: it opens the model and answers requests, one after another, alike ones at once.

A Keras model is not safe to use from several threads: compiled functions are cached by shape, generators of random
numbers have a state, Keras keeps settings such as the dtype policy per thread. In a thread of its own a model is used
as by `recipes predict`, whatever the backend.
"""

import asyncio
import contextlib
import queue
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from concurrent.futures import Future
from typing import Any, Generic, NamedTuple, TypeVar

from shared.training.predictors import TOGETHER

Model = TypeVar("Model")


class Abandoned(Exception):
    """Nobody waits for a computation any more."""


class Alike(NamedTuple):
    """What a computation has in common with others that may be computed at once with it."""

    key: Hashable
    """Equal for those that may."""
    item: Any
    """What it has of its own."""
    compute: Callable[[list[Any]], list[Any]]
    """From the items of some to the answer to each."""


class Computation:
    """A computation in the worker's thread, whose results arrive in the event loop as they are computed.

    Args:
        compute: computes, in the worker's thread, and gives its results to `emit` of this computation.
        alike: how it may be computed with others; None: by itself.
    """

    def __init__(self, compute: Callable[["Computation"], None], alike: Alike | None = None):
        self.compute = compute
        self.alike = alike
        self.answer: Any = None
        """The answer to its item, where it was computed with others."""
        self.abandoned = False
        self.loop = asyncio.get_running_loop()
        self.arrived: asyncio.Queue[Any] = asyncio.Queue()

    def joins(self, other: "Computation") -> bool:
        """Whether it may be computed at once with another."""
        return self.alike is not None and other.alike is not None and self.alike.key == other.alike.key

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


def compute_together(group: list[Computation]) -> None:
    """Computes the answers to computations that are alike, without those for which nobody waits.

    Where that fails, each computes its own afterwards: what is wrong with one is no matter of the others.
    """
    group = [computation for computation in group if not computation.abandoned]
    if len(group) > 1:
        with contextlib.suppress(Exception):
            answers = group[0].alike.compute([computation.alike.item for computation in group])
            for computation, answer in zip(group, answers, strict=True):
                computation.answer = answer


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
        for group in self.groups():
            compute_together(group)
            for computation in group:
                computation.run()

    def groups(self) -> Iterator[list[Computation]]:
        """The queued computations: the first one, and those alike that wait behind it, without waiting for more."""
        waiting: deque[Computation | None] = deque()
        while (first := waiting.popleft() if waiting else self.jobs.get()) is not None:
            while not self.jobs.empty():
                waiting.append(self.jobs.get())
            group = [first, *(each for each in waiting if each and each.joins(first))][:TOGETHER]
            waiting = deque(each for each in waiting if each not in group)
            yield group

    def start(self, compute: Callable[[Computation], None], alike: Alike | None = None) -> Computation:
        """Queues a computation, see `Computation`."""
        computation = Computation(compute, alike)
        self.jobs.put(computation)
        return computation

    def close(self) -> None:
        """Ends the thread after the computations that are queued."""
        self.jobs.put(None)
        self.thread.join()
