"""What a sweep came to: tables and figures in the directory of the run."""

import csv
import statistics
from pathlib import Path
from typing import Any

from shared.files import replacing
from shared.foundations.sweep_plots import plot_gradient_norms, plot_learning_rates, plot_schedules, plot_sweep_curves
from shared.foundations.sweep_table import sweep_markdown
from shared.training.run import Run
from shared.training.sweep import Outcome, Trials


def mean_and_deviation(values: list[float]) -> tuple[float, float]:
    """Mean and standard deviation (n − 1); 0 for a single value."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def sweep_rows(found: dict[str, Trials], test: dict[str, list[float]]) -> list[dict[str, Any]]:
    """One row for each technique; accuracies are means over the seeds, of those that did not diverge.

    Args:
        found: the trainings of each technique, with "val_top1" and "top1" in their histories.
        test: top-1 accuracies on the test data of each technique, by seed; none where a training diverged.
    """
    rows = []
    for value, trials in found.items():
        last = [each.facts["last"] for each in trials.chosen if each.score is not None]
        mean, deviation = mean_and_deviation(test[value]) if test[value] else (None, None)
        row = {
            "value": value,
            "learning_rate": trials.learning_rate,
            "top1": mean,
            "deviation": deviation,
            "val_top1": statistics.mean(each["val_top1"] for each in last) if last else None,
            "train_top1": statistics.mean(each["top1"] for each in last) if last else None,
            "epochs": statistics.mean(each["epoch"] for each in last) if last else None,
            "diverged": sum(each.score is None for each in trials.chosen),
            "at_edge": trials.at_edge,
        }
        rows.append(row)
    return rows


def trainings_of(trials: Trials) -> list[Outcome]:
    """All trainings of a technique: every learning rate, then the other seeds."""
    return [*trials.tried, *trials.chosen[1:]]


def write_tables(directory: Path, rows: list[dict[str, Any]], found: dict[str, Trials], title: str) -> None:
    """Writes table.md and table.csv, a row a technique, and trainings.csv, a row a training.

    Raises:
        OSError: one could not be written.
    """
    with replacing(directory / "table.md") as path:
        path.write_text(sweep_markdown(rows, title) + "\n", encoding="utf-8")
    write_rows(directory / "table.csv", rows)
    trainings = [
        {
            "value": value,
            "learning_rate": each.learning_rate,
            "seed": each.seed,
            "val_top1": each.score,
            "epochs": len(each.history),
            "seconds": round(each.seconds, 1),
        }
        for value, trials in found.items()
        for each in trainings_of(trials)
    ]
    write_rows(directory / "trainings.csv", trainings)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes rows of the same keys as CSV."""
    with replacing(path) as unfinished, open(unfinished, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def save_sweep(run: Run, vary: str, rows: list[dict[str, Any]], found: dict[str, Trials]) -> None:
    """Prints the table of a sweep, and writes it and the figures.

    Args:
        run: its run.
        vary: what was varied.
        rows: as `sweep_rows` makes them.
        found: the trainings of each technique.
    """
    print(sweep_markdown(rows, vary))
    write_tables(run.directory, rows, found, vary)
    run.save_figure("curves.png", plot_sweep_curves(found))
    run.save_figure("learning_rates.png", plot_learning_rates(found))
    run.save_figure("gradients.png", plot_gradient_norms(found))
    if vary == "schedule":
        run.save_figure("schedules.png", plot_schedules(list(found)))
