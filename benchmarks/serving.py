"""Load test of `recipes serve` on the loopback: requests per second, latency and memory by engine and backend.

A server for each engine and backend runs at the same time; rounds of requests alternate between them, so that noise
affects all alike. Each round starts with requests that do not count, one after another and at once, for what is
compiled. The processor time of a request, which other programs on the machine hardly change, is that of the server.

    python benchmarks/serving.py RUN                                      all installed backends
    recipes export RUN && python benchmarks/serving.py RUN --engines onnx,keras
    python benchmarks/serving.py RUN --engines onnx,keras --json results/serving/cnn_cifar10.json     recorded
"""

import base64
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import psutil
import tyro
from PIL import Image

from shared.backends.choice import backends_named, installed_backends


@dataclass
class LoadTest:
    """Measures `recipes serve`."""

    run: Annotated[Path, tyro.conf.Positional]
    """Directory of a finished run."""
    backends: str = ",".join(installed_backends())
    """Backends, separated by commas."""
    engines: str = "keras"
    """Engines, separated by commas: keras, onnx. ONNX Runtime is measured on the first backend alone."""
    requests: int = 200
    """Requests in each round."""
    clients: int = 8
    """Requests at once."""
    rounds: int = 3
    """Rounds on each backend."""
    size: int = 32
    """Height and width of the images that are sent, in pixels."""
    json: Path | None = None
    """Write the numbers to this file, too."""


class Place(NamedTuple):
    """What computes in a server."""

    backend: str
    engine: str


@contextmanager
def server(run: Path, place: Place) -> Iterator[tuple[int, psutil.Process]]:
    """A server: its port and its process."""
    command = [sys.executable, "-m", "shared.tools.cli", "serve", str(run), "--port", "0", "--engine", place.engine]
    environment = os.environ | {"KERAS_BACKEND": place.backend}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment) as it:
        try:
            found = re.search(r":(\d+)[ ;]", it.stdout.readline())
            if not found:
                raise SystemExit(f"the server on {place.backend} by {place.engine} does not start")
            yield int(found[1]), psutil.Process(it.pid)
        finally:
            it.terminate()


def body_for(info: dict[str, Any], size: int) -> bytes:
    """A request: noise, a sentence, a turn or the first class."""
    kind = info["input"]["kind"]
    if kind == "Picture":
        content = io.BytesIO()
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)).save(content, "PNG")
        value = base64.b64encode(content.getvalue()).decode()
    else:
        value = {"Text": "a man runs", "Conversation": ["how are you"], "ClassName": (info["classes"] or [""])[0]}[kind]
    return json.dumps({info["input"]["name"]: value}).encode()


def ask(port: int, bodies: list[bytes]) -> list[float]:
    """Sends requests one after another on one connection; returns the seconds that each took."""
    connection, seconds = HTTPConnection("127.0.0.1", port, timeout=120), []
    for body in bodies:
        begun = time.perf_counter()
        connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
        seconds.append(time.perf_counter() - begun)
        if response.status != 200:
            raise SystemExit(f"status {response.status}: {answer.decode()}")
    connection.close()
    return seconds


def one_round(port: int, body: bytes, requests: int, clients: int) -> tuple[float, list[float]]:
    """The seconds that a round took, and each of its requests."""
    with ThreadPoolExecutor(clients) as pool:
        begun = time.perf_counter()
        found = list(pool.map(lambda _: ask(port, [body] * (requests // clients)), range(clients)))
        return time.perf_counter() - begun, [each for seconds in found for each in seconds]


def processor_seconds(process: psutil.Process) -> float:
    """Processor time of a process so far, in seconds."""
    times = process.cpu_times()
    return times.user + times.system


def main(test: LoadTest) -> None:
    backends, engines = backends_named(test.backends), test.engines.split(",")
    places = [Place(backend, "keras") for backend in backends if "keras" in engines]
    places += [Place(backends[0], "onnx")] * ("onnx" in engines)
    took: dict[Place, list[float]] = {place: [] for place in places}
    latencies: dict[Place, list[float]] = {place: [] for place in places}
    computed: dict[Place, list[float]] = {place: [] for place in places}
    with ExitStack() as stack:
        servers = {place: stack.enter_context(server(test.run, place)) for place in places}
        connection = HTTPConnection("127.0.0.1", servers[places[0]][0])
        connection.request("GET", "/info")
        info = json.loads(connection.getresponse().read())
        body = body_for(info, test.size)
        for _ in range(test.rounds):
            for place, (port, process) in servers.items():
                ask(port, [body] * 3)
                one_round(port, body, 4 * test.clients, test.clients)
                before = processor_seconds(process)
                seconds, each = one_round(port, body, test.requests, test.clients)
                computed[place].append(processor_seconds(process) - before)
                took[place].append(seconds)
                latencies[place] += each
        memory = {place: process.memory_info().rss for place, (_, process) in servers.items()}
    rows = []
    for place in places:
        p50, p95 = np.percentile(latencies[place], [50, 95])
        count = len(latencies[place])
        rows.append(
            {
                **place._asdict(), "requests_per_second": round(count / sum(took[place]), 1),
                "p50_milliseconds": round(1000 * p50, 1), "p95_milliseconds": round(1000 * p95, 1),
                "processor_milliseconds": round(1000 * sum(computed[place]) / count, 2),
                "megabytes": round(memory[place] / 2**20),
            }
        )  # fmt: skip
    print(f"{info['recipe']}: {test.rounds} rounds of {test.requests} requests, {test.clients} at once")
    print("backend     engine  requests/s   p50 ms   p95 ms  processor ms     MB")
    for row in rows:
        name, engine, rate, p50, p95, processor, megabytes = row.values()
        print(f"{name:<11} {engine:<7} {rate:>10} {p50:>8} {p95:>8} {processor:>13} {megabytes:>6}")
    if test.json:
        os.environ.setdefault("KERAS_BACKEND", backends[0])  # not to import another, only to name the machine
        from shared.backends.runtime import machine_name
        from shared.training.options import source_commit

        report = {"recipe": info["recipe"], "preset": info["result"]["preset"], "requests": test.requests}
        report |= {"clients": test.clients, "machine": machine_name(), "commit": source_commit(), "rows": rows}
        test.json.parent.mkdir(parents=True, exist_ok=True)
        test.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(LoadTest, description=__doc__))
