"""Tracking with Weights & Biases."""

import json
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shared.training.tracking.tracker import scalar_names

LOG_BLOCK = 32768
"""Size of a block of a LevelDB log."""


def records_in(path: Path) -> Iterator[bytes]:
    """The records of a .wandb file, as far as they are whole: W&B's header, then a log of LevelDB."""
    data, position, record = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        if LOG_BLOCK - position % LOG_BLOCK < 7:  # too short for a header: padding
            position += LOG_BLOCK - position % LOG_BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        position += 7
        if kind not in (1, 2, 3, 4) or position + length > len(data):
            return
        record += data[position : position + length]
        position += length
        if kind in (1, 4):  # whole, or its last part
            yield record
            record = b""


def history_in(folder: Path, identity: str) -> Iterator[dict[str, Any]]:
    """The rows that earlier processes of a run have logged, online or offline, and that were not lost by kill -9."""
    from wandb.proto.wandb_internal_pb2 import Record

    for path in sorted(folder.glob(f"*run-*/run-{identity}.wandb")):
        for data in records_in(path):
            record = Record.FromString(data)
            if record.HasField("history"):
                yield {
                    item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
                }


class WandbTracker:
    """Logs to the folder wandb/ of the run, and online only where WANDB_MODE says so."""

    def start(self, directory: Path, identity: str, facts: dict[str, Any]) -> str:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        mode = os.environ.get("WANDB_MODE", "offline")
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "keras-recipes"),
            group=facts["recipe"],
            name=directory.name,
            id=identity,
            dir=directory.resolve(),
            mode=mode,
            resume="allow",
            reinit="create_new",
            config=facts["options"] | {name: facts.get(name) for name in ("backend", "commit", "machine", "command")},
            allow_val_change=True,
            settings=wandb.Settings(console="off", silent=True),
        )
        self.name = directory.name
        self.latest = dict(self.run.summary)  # of a run resumed online
        for row in history_in(directory / "wandb", identity):
            self.latest |= row
        return f"wandb sync {directory / 'wandb'}" if mode == "offline" else str(self.run.url)

    def log(self, epoch_name: str, values: dict[str, Any]) -> None:
        """Logs values of an epoch, unless they are logged."""
        if values[epoch_name] > self.latest.get(epoch_name, -1):
            for name in values.keys() - self.latest.keys() - {epoch_name}:
                self.run.define_metric(name, step_metric=epoch_name)
            self.run.log(values)
            self.latest |= values

    def scalars(self, phase: str, row: dict[str, float]) -> None:
        self.log(f"{phase}/epoch" if phase else "epoch", scalar_names(phase, row))

    def figure(self, path: Path, epoch: int, series: str) -> None:
        from wandb import Image

        name = f"figures/{series or path.stem}"
        self.log(f"{name}/epoch", {f"{name}/epoch": epoch, name: Image(str(path))})

    def finish(self, result: dict[str, Any], model: Path | None) -> None:
        self.run.summary.update({f"result/{name}": value for name, value in result["metrics"].items()})
        self.run.summary["result"] = json.dumps(result)
        if model:
            self.run.log_artifact(model, name=f"{self.name}-model", type="model")
        self.close(0)

    def interrupt(self) -> None:
        self.close(130)

    def close(self, exit_code: int) -> None:
        """Closes W&B's run, and waits until its other process has written the log that a resume reads."""
        from wandb.proto.wandb_internal_pb2 import Record

        self.run.finish(exit_code=exit_code)
        path, latest = Path(self.run.settings.sync_file), time.monotonic() + 60
        while path.exists() and time.monotonic() < latest:
            if any(Record.FromString(data).HasField("exit") for data in records_in(path)):
                return
            time.sleep(0.02)
