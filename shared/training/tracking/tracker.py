"""What a tracker does, and which ones there are."""

from pathlib import Path
from typing import Any, Protocol

from shared.backends.choice import require_extra
from shared.errors import UsageError

TRACKERS = {"tensorboard": ("tensorboard",), "mlflow": ("mlflow", "sqlalchemy", "alembic"), "wandb": ("wandb",)}
"""Trackers, each with the packages that it needs. The extra that installs them has its name."""


class Tracker(Protocol):
    """Experiment tracker. Its methods may raise any exception, after which it is not called any more.

    It may be given again what it has, by a process that resumes the run: it passes over that.
    """

    def start(self, directory: Path, identity: str, facts: dict[str, Any]) -> str:
        """Opens the tracker's run, or that of an earlier process again; returns the command that shows it.

        Args:
            directory: of the run.
            identity: the same in each process of the run, and in no other run.
            facts: the content of config.json: the recipe, its options, and the code, machine and command.
        """

    def scalars(self, phase: str, row: dict[str, float]) -> None:
        """Logs the losses and metrics of an epoch: a row of history.csv, of a phase or of the main training, ""."""

    def figure(self, path: Path, epoch: int, series: str) -> None:
        """Logs a PNG file drawn after this epoch, one of a series with a name, or "" for a figure of its own."""

    def finish(self, result: dict[str, Any], model: Path | None) -> None:
        """Logs the content of result.json and, if asked for, model.keras, and closes the tracker's run."""

    def interrupt(self) -> None:
        """Closes the tracker's run, to be resumed."""


def trackers_named(text: str, option: str = "--track") -> tuple[str, ...]:
    """The trackers of a list such as "tensorboard,mlflow".

    Raises:
        UsageError: it names something else.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if set(names) - TRACKERS.keys():
        raise UsageError(f"{option} must be of {', '.join(TRACKERS)}, separated by commas, not {text!r}")
    return names


def require_trackers(names: tuple[str, ...]) -> None:
    """Raises a UsageError that names the extra, unless the packages of all trackers are installed."""
    for name in names:
        require_extra(name, *TRACKERS[name])


def scalar_names(phase: str, row: dict[str, float]) -> dict[str, float]:
    """A row of history.csv with the phase in the names, as in "head/loss"."""
    return {f"{phase}/{name}" if phase else name: value for name, value in row.items()}
