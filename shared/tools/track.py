"""Finished runs sent to experiment trackers."""

import csv
import json
from pathlib import Path

from shared.errors import UsageError
from shared.training.tracking.tracker import require_trackers, trackers_named
from shared.training.tracking.tracking import Tracking


def track_run(directory: Path, trackers: str, model: bool) -> bool:
    """Sends a finished run to trackers, each of which passes over what it has.

    Args:
        directory: of the run.
        trackers: their names, separated by commas.
        model: whether to send model.keras too.

    Returns:
        Whether all trackers took it.

    Raises:
        UsageError: a tracker is not known or not installed, or there is no finished run.
    """
    names = trackers_named(trackers, "--to")
    require_trackers(names)
    try:
        result = json.loads((directory / "result.json").read_text(encoding="utf-8"))
        histories = {path.stem.partition("-")[2]: read_history(path) for path in directory.glob("history*.csv")}
        tracking = Tracking(names, directory, model)
        tracking.start()
    except (OSError, ValueError) as error:
        raise UsageError(f"{directory} holds no finished run ({error}): let it end first") from None
    for phase, rows in sorted(histories.items()):
        tracking.epochs(phase, rows)
    for path in sorted(directory.glob("epochs/[0-9]*.png")):
        tracking.figure(path, int(path.stem), "epochs")
    for path in sorted(directory.glob("*.png")):
        tracking.figure(path, len(histories.get("", ())))
    tracking.finish(result)
    return not tracking.failed


def read_history(path: Path) -> list[dict[str, float]]:
    """The rows of a history.csv."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{name: int(value) if name == "epoch" else float(value) for name, value in row.items()} for row in rows]
