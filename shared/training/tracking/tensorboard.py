"""Tracking with TensorBoard."""

import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from shared.training.tracking.tracker import scalar_names


def events_in(folder: Path) -> Iterator[Any]:
    """The events in the event files of a folder, as far as they are whole."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.tensorflow_stub.errors import DataLossError, OutOfRangeError
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New

    for path in sorted(folder.glob("*.tfevents.*")):
        reader = PyRecordReader_New(str(path))
        try:
            while True:
                reader.GetNext()
                yield Event.FromString(reader.record())
        except (OutOfRangeError, DataLossError):  # the end, or a record that kill -9 cut off
            pass


class TensorBoardTracker:
    """Writes event files to the folder tensorboard/ of the run.

    `keras.callbacks.TensorBoard`, and TensorBoard's own `EventFileWriter` where it can, import TensorFlow; what is used
    of TensorBoard here does not.
    """

    def start(self, directory: Path, identity: str, facts: dict[str, Any]) -> str:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder = directory / "tensorboard"
        folder.mkdir(exist_ok=True)
        self.written = {(value.tag, event.step) for event in events_in(folder) for value in event.summary.value}
        # The files of a run are read in the order of their names.
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self.file = open(folder / name, "xb", buffering=0)  # noqa: SIM115 - closed at the end of the run
        self.writer = RecordWriter(self.file)
        self.writer.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
        options = {name: value if isinstance(value, (bool, int, float)) else str(value)
                   for name, value in facts["options"].items()}  # fmt: skip
        self.write(list(hparams_pb(options, trial_id=directory.name).value), 0)
        self.text("run", facts, 0)
        return f"tensorboard --logdir {directory.parent}"

    def write(self, values: list[Any], step: int) -> None:
        """Writes as one event those values of a step that are not written yet."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        if new := [value for value in values if (value.tag, step) not in self.written]:
            event = Event(wall_time=time.time(), step=step, summary=Summary(value=new))
            self.writer.write(event.SerializeToString())
            self.written.update((value.tag, step) for value in new)

    def text(self, tag: str, facts: dict[str, Any], step: int) -> None:
        """Writes facts as JSON, also where a resumed run has written others."""
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.types_pb2 import DT_STRING

        self.written.discard((tag, step))
        shown = f"```json\n{json.dumps(facts, indent=1)}\n```".encode()
        self.write([Summary.Value(
            tag=tag,
            metadata=SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text")),
            tensor=TensorProto(dtype=DT_STRING, string_val=[shown]),
        )], step)  # fmt: skip

    def scalars(self, phase: str, row: dict[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = scalar_names(phase, {name: value for name, value in row.items() if name != "epoch"})
        self.write([Summary.Value(tag=name, simple_value=value) for name, value in values.items()], row["epoch"])

    def figure(self, path: Path, epoch: int, series: str) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        with Image.open(path) as image:
            width, height, channels = image.width, image.height, len(image.getbands())
        encoded = Summary.Image(width=width, height=height, colorspace=channels, encoded_image_string=path.read_bytes())
        self.write([Summary.Value(tag=series or path.stem, image=encoded)], epoch)

    def finish(self, result: dict[str, Any], model: Path | None) -> None:
        """Logs the result; the model stays where it is, beside the events."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        metrics = [Summary.Value(tag=f"result/{name}", simple_value=value) for name, value in result["metrics"].items()]
        self.write(metrics, result["epochs"])
        self.text("result", result, result["epochs"])
        self.file.close()

    def interrupt(self) -> None:
        self.file.close()
