"""Runs the same experiment on every backend, in turns, and gathers what was measured."""

import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.backends.choice import install_command, installed_backends
from shared.errors import UsageError
from shared.tools.compare.agreement import compare_courses, compare_layers
from shared.tools.compare.job import Job
from shared.tools.project import PROJECT

FACTS = ("parameters", "precision", "machine", "commit", "preset", "batch_size", "batches_per_epoch", "epochs")
"""What is known of the experiment once a backend has checked the options; None before."""

AGAINST_NATIVE = (
    "median_step_seconds", "generated_tokens_per_second", "generated_images_per_second", "training_memory_bytes",
)  # fmt: skip
"""Measures that are compared with those of the native baseline."""


@dataclass
class Row:
    """One way of running the experiment: a backend of Keras, or a native baseline."""

    name: str
    backend: str
    native: Path | None = None
    problem: str | None = None
    """Why it has no, or not all, numbers."""
    facts: dict[str, Any] = field(default_factory=dict)
    course: dict[str, Any] = field(default_factory=dict)
    """Of the first steps, see `training_course`."""
    reordered: list[dict[str, Any]] = field(default_factory=list)
    """The same with the examples of each batch in other orders."""
    layers: Path | None = None
    measured: list[dict[str, float]] = field(default_factory=list)
    """One dictionary a round."""

    def summary(self) -> dict[str, Any]:
        """What report.json says of it: each measure's median, lowest and highest over the rounds, and its values."""
        measures = {}
        for name in dict.fromkeys(name for round_ in self.measured for name in round_):
            values = [round_[name] for round_ in self.measured if round_.get(name) is not None]
            if values:
                median = statistics.median(values)
                measures[name] = {"median": median, "lowest": min(values), "highest": max(values), "values": values}
        return {
            "name": self.name,
            "backend": self.backend,
            "native": self.native is not None,
            "problem": self.problem,
            **self.facts,
            "losses": losses_of(self.course),
            "reordered": [losses_of(course) for course in self.reordered],
            "measures": measures,
        }


def losses_of(course: dict[str, Any]) -> list[float]:
    """The losses of a course; empty where there is none."""
    return [loss for (loss,) in course["loss"]["values"]] if course else []


class WorkerFailed(Exception):
    """A job did not end well. The message is one line."""


class WorkerMisused(WorkerFailed):
    """A job refused its options."""


class Comparison:
    """The rounds of one comparison, and what they gave.

    Args:
        recipe: its name.
        options: the recipe's own options, as on its command line.
        backends: names, in the order of the report.
        repeats: rounds in which each backend runs the whole recipe.
        steps: training steps whose losses are laid over each other.
        native: also run what benchmarks/ holds of this recipe.
        layers: also compare each layer.
        directory: where everything goes; it must not exist.
    """

    def __init__(
        self,
        recipe: str,
        options: list[str],
        backends: tuple[str, ...],
        repeats: int,
        steps: int,
        native: bool,
        layers: bool,
        directory: Path,
    ):
        self.recipe = recipe
        self.options = options
        self.repeats = repeats
        self.steps = steps
        self.layers = layers
        self.directory = directory
        self.facts: dict[str, Any] = {}
        self.interrupted = False
        self.rows = [Row(name, name) for name in backends]
        for row in list(self.rows):
            if row.backend not in installed_backends():
                row.problem = f"not installed: {install_command(row.backend)}"
            path = PROJECT / "benchmarks" / f"{recipe}_{row.backend}.py"
            if native and path.exists():
                self.rows.append(Row(f"native {row.backend}", row.backend, native=path, problem=row.problem))
        self.jobs_done = 0

    @property
    def working(self) -> list[Row]:
        """The rows without a problem so far."""
        return [row for row in self.rows if not row.problem]

    def run(self) -> None:
        """Runs everything. What was measured before a Ctrl-C, SIGTERM or SIGHUP is kept, and `interrupted` set.

        Raises:
            UsageError: the directory cannot be used, or the recipe refuses its options.
        """
        try:
            self.directory.mkdir(parents=True)
        except OSError as error:
            raise UsageError(f"cannot make {self.directory} ({error.strerror}): take another --out") from None
        try:
            with interrupted_by_signals():
                self.prepare()
                for row in self.working:
                    self.attempt(row, "agree", self.keep_losses)
                if self.layers:
                    self.run_layers()
                for number in range(1, self.repeats + 1):
                    for row in self.working:
                        self.attempt(row, "measure", self.keep_measured, number)
        except KeyboardInterrupt:
            self.interrupted = True

    def job_count(self) -> int:
        """How many jobs there are in all, as far as is known now."""
        keras_rows = [row for row in self.working if not row.native]
        return 1 + len(self.working) * (1 + self.repeats) + (len(keras_rows) if self.layers else 0)

    def prepare(self) -> None:
        """Lets the first backend that works check the options and say what they mean."""
        for row in [row for row in self.working if not row.native]:
            try:
                self.facts = self.answer_of(row, "prepare")
            except WorkerMisused as error:
                shutil.rmtree(self.directory)
                raise UsageError(str(error)) from None
            except WorkerFailed as error:
                self.drop(row, error)
            else:
                return
        for row in self.working:
            row.problem = "no backend of Keras began the training"

    def attempt(self, row: Row, task: str, keep: Any, number: int | None = None, **job: Any) -> None:
        """Runs a job and keeps its answer, or notes why there is none."""
        try:
            answer = self.answer_of(row, task, number, **job)
        except WorkerFailed as error:
            self.drop(row, error)
            answer = self.read_answer(row, task, number)  # a missed --target has numbers all the same
        if answer:
            row.facts |= {key: answer[key] for key in ("version", "device", "keras", "data", "metric") if key in answer}
            keep(row, answer)

    def drop(self, row: Row, error: WorkerFailed) -> None:
        """Notes why a row has no, or not all, numbers, and says it at once."""
        row.problem = str(error)
        print(f"{row.name}: {row.problem}", file=sys.stderr, flush=True)

    def keep_losses(self, row: Row, answer: dict[str, Any]) -> None:
        row.course, row.reordered = answer["course"], answer["reordered"]

    def keep_measured(self, row: Row, answer: dict[str, Any]) -> None:
        row.measured.append(answer["measured"])

    def run_layers(self) -> None:
        """Runs each layer on each backend, the first one giving the inputs."""
        reference = None
        for row in [row for row in self.working if not row.native]:
            self.attempt(row, "layers", lambda row, answer: None, reference=reference)
            if not row.problem:
                row.layers = self.job_directory(row, "layers", None)
                reference = reference or str(row.layers)

    def job_directory(self, row: Row, task: str, number: int | None) -> Path:
        return self.directory / "-".join([row.name.replace(" ", "-"), task, *([str(number)] if number else [])])

    def read_answer(self, row: Row, task: str, number: int | None) -> dict[str, Any] | None:
        path = self.job_directory(row, task, number) / "answer.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def answer_of(self, row: Row, task: str, number: int | None = None, **job: Any) -> dict[str, Any]:
        """Runs one job in a process of its own and returns its answer.

        Raises:
            WorkerFailed: it ended badly.
            WorkerMisused: it refused its options.
        """
        directory = self.job_directory(row, task, number)
        directory.mkdir()
        run = directory / "run"
        options = [*self.options, "--out", str(run)]
        native = str(row.native) if row.native else None
        job = Job(self.recipe, task, str(directory), options, steps=self.steps, native=native, **job)
        (directory / "job.json").write_text(json.dumps(job._asdict()), encoding="utf-8")
        environment = os.environ | {
            "KERAS_BACKEND": row.backend,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")])),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        if task == "measure":  # so that the first step of each round compiles
            environment["JAX_COMPILATION_CACHE_DIR"] = str(directory / "programs")
        self.jobs_done += 1
        what = {
            "prepare": "options",
            "agree": f"first {self.steps} steps",
            "layers": "each layer",
            "measure": f"round {number} of {self.repeats}",
        }[task]
        label = f"[{self.jobs_done}/{max(self.job_count(), self.jobs_done)}] {row.name}: {what}"
        command = [sys.executable, "-m", "shared.tools.compare.worker", str(directory / "job.json")]
        code = run_watched(command, environment, directory / "log.txt", label)
        shutil.rmtree(run / "checkpoint", ignore_errors=True)
        shutil.rmtree(directory / "programs", ignore_errors=True)
        if code:
            failure = WorkerMisused if code == 2 else WorkerFailed
            raise failure(reason_of(code, directory / "log.txt"))
        return self.read_answer(row, task, number)

    def report(self) -> dict[str, Any]:
        """What report.json holds."""
        courses = {row.name: row.course for row in self.rows if row.course}
        reordered = {row.name: row.reordered for row in self.rows}
        directories = {row.name: row.layers for row in self.rows if row.layers}
        return {
            "recipe": self.recipe,
            "options": self.options,
            "repeats": self.repeats,
            "steps": self.steps,
            "interrupted": self.interrupted,
            **dict.fromkeys(FACTS),
            **{key: value for key, value in self.facts.items() if key not in ("version", "device")},
            "rows": [row.summary() for row in self.rows],
            "compared": compare_courses(courses, reordered),
            "layers": compare_layers(directories) if len(directories) > 1 else [],
            "native": dict(self.ratios()),
        }

    def ratios(self) -> Iterator[tuple[str, dict[str, float]]]:
        """For each backend, its median of each of `AGAINST_NATIVE` over that of its native baseline."""
        medians = {
            (row.backend, row.native is not None): {
                name: statistics.median(values)
                for name in AGAINST_NATIVE
                if all(values := [round_.get(name) for round_ in row.measured])
            }
            for row in self.rows
            if row.measured
        }
        for backend, native in medians:
            if native and (backend, False) in medians:
                ours, theirs = medians[backend, False], medians[backend, True]
                yield backend, {name: ours[name] / theirs[name] for name in ours if name in theirs}


@contextlib.contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Lets SIGTERM and the end of the terminal do what Ctrl-C does, unless they are ignored, as under nohup."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_watched(command: list[str], environment: dict[str, str], log: Path, label: str) -> int:
    """Runs a command with its output in a file, showing on a terminal how it goes; returns its exit code.

    Its standard input stays open as long as this process lives; see `end_with_parent`.
    """
    started = time.monotonic()
    print(label, end="" if sys.stdout.isatty() else "\n", flush=True)
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        try:
            while process.poll() is None:
                time.sleep(0.1)
                if sys.stdout.isatty():
                    last = last_line(log)[:60]
                    print(f"\r\033[K{label}  {time.monotonic() - started:.0f} s  {last}", end="", flush=True)
        except KeyboardInterrupt:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        finally:
            process.stdin.close()
            if sys.stdout.isatty():
                print(f"\r\033[K{label}  {time.monotonic() - started:.0f} s")
    return process.returncode


def last_line(log: Path) -> str:
    """The last line of a log that is not empty."""
    lines = [
        line.strip() for line in log.read_text(errors="replace", encoding="utf-8").replace("\r", "\n").splitlines()
    ]
    return next((line for line in reversed(lines) if line), "")


def reason_of(code: int, log: Path) -> str:
    """Why a worker ended with this code, in one line."""
    if code < 0:
        memory = "; out of memory?" if -code == signal.SIGKILL else ""
        return f"killed by {signal.Signals(-code).name}{memory} (see {log})"
    lines = log.read_text(errors="replace", encoding="utf-8").splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or [last_line(log)])[-1] + ("" if code == 2 else f" (exit code {code}, see {log})")
