"""Formats of export: the backend that writes each, and what it needs. Starts the process that does."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from shared.backends.choice import install_command, require_extra
from shared.errors import UsageError

FormatName = Literal["onnx", "litert", "saved_model", "stablehlo"]


class Format(NamedTuple):
    """A format of exported models."""

    runtime: str
    package: str
    """Distribution of the runtime."""
    suffix: str
    writers: dict[str, tuple[str, ...]]
    """Backends that write it, the preferred one first, and the modules that each needs."""


FORMATS: dict[str, Format] = {
    "onnx": Format(
        "ONNX Runtime", "onnxruntime", ".onnx",
        {"tensorflow": ("onnx", "onnxruntime", "tf2onnx"), "torch": ("onnx", "onnxruntime", "onnxscript")},
    ),
    "litert": Format("LiteRT", "ai-edge-litert", ".tflite", {"tensorflow": ("ai_edge_litert",)}),
    "saved_model": Format("TensorFlow", "tensorflow", "", {"tensorflow": ()}),
    "stablehlo": Format("JAX", "jax", ".stablehlo", {"jax": ("flatbuffers",)}),
}  # fmt: skip


@dataclass
class Request:
    """What is to be exported, and where to."""

    directory: Path
    format: str
    out: Path
    raw: bool = False
    int8: bool = False
    most_loss: float = 1.0

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> "Request":
        facts = json.loads(text)
        return cls(**facts | {name: Path(facts[name]) for name in ("directory", "out")})


def writer_of(format_name: str) -> str:
    """The backend that is to write a format.

    Raises:
        UsageError: no backend that can is installed, or a package is missing.
    """
    writers = FORMATS[format_name].writers
    installed = [name for name in writers if importlib.util.find_spec(name)]
    if not installed:
        names, first = " or ".join(writers), next(iter(writers))
        raise UsageError(f"{format_name} is written by {names}, not installed here: run  {install_command(first)}")
    require_extra("export", *writers[installed[0]])
    return installed[0]


def export_run(directory: Path, format_name: str, out: Path | None, **options: Any) -> int:
    """The command `recipes export`; returns its exit code.

    Raises:
        UsageError: something is not installed, or options do not go together.
    """
    if options["int8"] and format_name != "onnx":
        raise UsageError(f"--int8 is for --format onnx, not {format_name}: leave one of them out")
    if options["int8"] and options["raw"]:
        raise UsageError("--int8 is for whole classifiers, not for --raw: leave one of them out")
    if out and out.is_dir() and not (format_name == "saved_model" and (out / "saved_model.pb").exists()):
        raise UsageError(f"--out {out} is a directory, which the export would replace: name a file in it")
    backend = writer_of(format_name)
    folder = directory / "export" / (f"{format_name}-int8" if options["int8"] else format_name)
    request = Request(directory, format_name, out or folder / f"model{FORMATS[format_name].suffix}", **options)
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "shared.tools.exporting.worker", request.to_json()]
    process = subprocess.run(command, env=environment, stderr=subprocess.PIPE, encoding="utf-8", errors="replace")
    lines = process.stderr.splitlines(keepends=True)
    # Of what libraries remark, all is shown only where something failed that has no message here, which is the last.
    told = [line for line in lines if line.startswith("error: ")][-1:]
    sys.stderr.writelines(told or (lines if process.returncode else []))
    return process.returncode
