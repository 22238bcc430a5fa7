"""The trackers of one run."""

import contextlib
import json
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shared.files import replacing
from shared.training.tracking.mlflow import MlflowTracker
from shared.training.tracking.tensorboard import TensorBoardTracker
from shared.training.tracking.tracker import Tracker
from shared.training.tracking.wandb import WandbTracker


def new_tracker(name: str) -> Tracker:
    """A tracker by its name."""
    return {"tensorboard": TensorBoardTracker, "mlflow": MlflowTracker, "wandb": WandbTracker}[name]()


class Tracking:
    """The trackers of a run. One that fails is left out from then on, with a warning, and the training goes on.

    Args:
        names: of the trackers, which are installed.
        directory: of the run.
        model: whether they are sent model.keras too.
    """

    def __init__(self, names: tuple[str, ...], directory: Path, model: bool = False):
        self.names = names
        self.directory = directory
        self.model = model
        self.trackers: dict[str, Tracker] = {}
        """Those that are started."""
        self.failed: set[str] = set()
        self.sent: dict[str, int] = {}
        """Number of epochs that were sent, by phase."""

    def start(self) -> None:
        """Starts the trackers, unless they are started; a resumed run goes on in the run that a tracker has of it."""
        waiting = [name for name in self.names if name not in self.trackers and name not in self.failed]
        if not waiting:
            return
        facts = json.loads((self.directory / "config.json").read_text(encoding="utf-8"))
        identity = self.identity()
        for name in waiting:
            self.trackers[name] = new_tracker(name)
            if shown_by := self.call(name, "start", self.directory, identity, facts):
                print(f"tracked by {name}; to see it:  {shown_by}")
        self.sent = {}

    def identity(self) -> str:
        """What the trackers know this run by, kept in tracking.json."""
        path = self.directory / "tracking.json"
        if not path.exists():
            with replacing(path) as unfinished:
                unfinished.write_text(json.dumps({"id": uuid.uuid4().hex[:12]}) + "\n", encoding="utf-8")
        return json.loads(path.read_text(encoding="utf-8"))["id"]

    def call(self, name: str, method: str, *arguments: Any) -> Any:
        """What a method of a tracker returns; None where it fails, which it is left out for."""
        try:
            return getattr(self.trackers[name], method)(*arguments)
        except Exception as error:  # noqa: BLE001 - whatever a tracker raises, it must not end the training
            del self.trackers[name]
            self.failed.add(name)
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            print(
                f"WARNING: tracking by {name} failed ({reason}); the run goes on without it. When it works again: "
                f"recipes track {self.directory} --to {name}",
                file=sys.stderr,
            )
            return None

    def epochs(self, phase: str, rows: list[dict[str, float]]) -> None:
        """Sends the rows of a history that were not sent yet."""
        for row in rows[self.sent.get(phase, 0) :] if self.trackers else ():
            for name in list(self.trackers):
                self.call(name, "scalars", phase, row)
        self.sent[phase] = len(rows)

    def figure(self, path: Path, epoch: int, series: str = "") -> None:
        """Sends a figure drawn after this epoch; trackers do not know other files than PNG.

        Args:
            path: of the figure.
            epoch: number of epochs so far.
            series: what figures of several epochs are called together; "": the figure is drawn once.
        """
        if path.suffix == ".png":
            self.start()  # which the first epoch of the training would do otherwise
            for name in list(self.trackers):
                self.call(name, "figure", path, epoch, series)

    def finish(self, result: dict[str, Any]) -> None:
        """Sends the result and, if asked for, the model, and closes the run of each tracker."""
        model = self.directory / "model.keras" if self.model else None
        for name in list(self.trackers):
            self.call(name, "finish", result, model)
        self.trackers.clear()

    @contextlib.contextmanager
    def closed_when_interrupted(self) -> Iterator[None]:
        """Context in which an exception, such as that of a stop, closes the run of each tracker."""
        try:
            yield
        except BaseException:
            for name in list(self.trackers):
                self.call(name, "interrupt")
            self.trackers.clear()
            raise
