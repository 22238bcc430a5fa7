"""Load test of `recipes serve` on the loopback: requests per second, latency and memory on each backend.

A server for each backend runs at the same time; rounds of requests alternate between them, so that noise affects all
alike. Each round starts with requests that do not count, for what is compiled.

    python benchmarks/serving.py RUN                                      all installed backends
    python benchmarks/serving.py RUN --backends jax,torch --json out.json
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
from typing import Annotated, Any

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


@contextmanager
def server(run: Path, backend: str) -> Iterator[tuple[int, psutil.Process]]:
    """A server: its port and its process."""
    command = [sys.executable, "-m", "shared.tools.cli", "serve", str(run), "--port", "0"]
    environment = os.environ | {"KERAS_BACKEND": backend}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment) as it:
        try:
            found = re.search(r":(\d+)[ ;]", it.stdout.readline())
            if not found:
                raise SystemExit(f"the server on {backend} does not start")
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
    ask(port, [body] * 3)
    with ThreadPoolExecutor(clients) as pool:
        begun = time.perf_counter()
        found = list(pool.map(lambda _: ask(port, [body] * (requests // clients)), range(clients)))
        return time.perf_counter() - begun, [each for seconds in found for each in seconds]


def main(test: LoadTest) -> None:
    backends = backends_named(test.backends)
    took: dict[str, list[float]] = {name: [] for name in backends}
    latencies: dict[str, list[float]] = {name: [] for name in backends}
    with ExitStack() as stack:
        servers = {name: stack.enter_context(server(test.run, name)) for name in backends}
        connection = HTTPConnection("127.0.0.1", servers[backends[0]][0])
        connection.request("GET", "/info")
        info = json.loads(connection.getresponse().read())
        body = body_for(info, test.size)
        for _ in range(test.rounds):
            for name, (port, _) in servers.items():
                seconds, each = one_round(port, body, test.requests, test.clients)
                took[name].append(seconds)
                latencies[name] += each
        memory = {name: process.memory_info().rss for name, (_, process) in servers.items()}
    rows = []
    for name in backends:
        p50, p95 = np.percentile(latencies[name], [50, 95])
        rate = len(latencies[name]) / sum(took[name])
        rows.append(
            {
                "backend": name, "engine": "keras", "requests_per_second": round(rate, 1),
                "p50_milliseconds": round(1000 * p50, 1), "p95_milliseconds": round(1000 * p95, 1),
                "megabytes": round(memory[name] / 2**20),
            }
        )  # fmt: skip
    print(f"{info['recipe']}: {test.rounds} rounds of {test.requests} requests, {test.clients} at once")
    print("backend     engine  requests/s   p50 ms   p95 ms     MB")
    for row in rows:
        name, engine, rate, p50, p95, megabytes = row.values()
        print(f"{name:<11} {engine:<7} {rate:>10} {p50:>8} {p95:>8} {megabytes:>6}")
    if test.json:
        report = {"recipe": info["recipe"], "requests": test.requests, "clients": test.clients, "rows": rows}
        test.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(LoadTest, description=__doc__))
