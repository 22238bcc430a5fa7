"""The command `recipes serve`: a finished run as a web page and an API."""

import signal
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn

from shared.errors import UsageError
from shared.tools.serving.app import Limits, create_app
from shared.tools.serving.engines import keras_engine
from shared.tools.serving.interface import Served
from shared.tools.serving.worker import Worker

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve_from(
    directory: Path, host: str, port: int, limits: Limits, engine: Callable[[Path], Served] = keras_engine
) -> int:
    """Serves a finished run until SIGTERM or Ctrl-C; returns the exit code.

    Args:
        directory: of the run.
        host: address to listen on.
        port: to listen on; 0 takes a free one.
        limits: of each request.
        engine: how the run is opened.

    Raises:
        UsageError: there is no finished run, or the address cannot be had.
    """
    with listening_socket(host, port) as listener:
        worker = Worker(lambda: engine(directory))
        try:
            app = create_app(worker, limits)
            run_server(app, listener, announcement(worker.model, directory, host, listener.getsockname()[1]), limits)
        finally:
            worker.close()
    return 0


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket bound to the address, on which the server will listen."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except BaseException:
            listener.close()
            raise
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot listen on {host}:{port} ({reason}): name another --port or --host") from None
    return listener


def announcement(served: Served, directory: Path, host: str, port: int) -> str:
    """What is served, and where."""
    address = f"[{host}]" if ":" in host else host
    open_to_all = "" if host in LOOPBACK else "; whoever reaches this address may use it, there is no password"
    by = " by ONNX Runtime" if served.engine == "onnx" else ""
    return f"{served.recipe} of {directory}{by}: http://{address}:{port}{open_to_all} (Ctrl-C ends it)"


def run_server(app: object, listener: socket.socket, announced: str, limits: Limits) -> None:
    """Runs the server until SIGTERM or Ctrl-C, then finishes the requests under way."""

    class AnnouncedServer(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            print(announced, flush=True)

    # In JSON no model is so large, nor its answer so late, that more time is of use.
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, lifespan="off", ws="none",
        timeout_graceful_shutdown=int(limits.seconds) + 15,
    )  # fmt: skip
    # uvicorn raises the signal again after it has finished, which would end the process as if it had failed.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        AnnouncedServer(config).run(sockets=[listener])
    finally:
        signal.signal(signal.SIGTERM, before)
