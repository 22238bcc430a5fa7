"""Figures of a sweep: techniques laid over each other."""

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shared.foundations.techniques import SCHEDULES
from shared.training.sweep import Outcome, Trials

SWEEP_COLORS = [*colormaps["tab10"].colors, "black", "gold"]


def plot_sweep_curves(found: dict[str, Trials]) -> Figure:
    """Learning curves of each technique at its best learning rate, the mean of the seeds, and their range as a band.

    Args:
        found: the trainings of each technique, with "loss", "top1" and "val_top1" in their histories.
    """
    figure = Figure(figsize=(16, 5), layout="constrained")
    names = {"loss": "training loss", "top1": "top-1 accuracy, training", "val_top1": "top-1 accuracy, validation"}
    panels = figure.subplots(1, 3)
    for axes, (name, title) in zip(panels, names.items(), strict=True):
        for (value, trials), color in zip(found.items(), SWEEP_COLORS, strict=False):
            draw_seeds(axes, trials.chosen, name, color, f"{value} ({trials.learning_rate:g})")
        axes.set(xlabel="epoch", title=title)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    panels[0].set_yscale("log")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", title="learning rate in brackets")
    return figure


def draw_seeds(axes: Axes, outcomes: list[Outcome], name: str, color: tuple, label: str) -> None:
    """Draws one metric of some seeds over the epochs that all of them have: the mean, and their range as a band.

    Of trainings that diverged nothing is drawn.
    """
    histories = [each.history for each in outcomes if each.score is not None]
    if not histories:
        return
    epochs = min(len(history) for history in histories)
    curves = np.array([[row[name] for row in history[:epochs]] for history in histories])
    numbers = range(1, epochs + 1)
    axes.plot(numbers, curves.mean(axis=0), "o-", markersize=3, color=color, label=label)
    axes.fill_between(numbers, curves.min(axis=0), curves.max(axis=0), color=color, alpha=0.15, linewidth=0)


def plot_learning_rates(found: dict[str, Trials]) -> Figure:
    """Accuracy on the validation images by learning rate, of each technique, the chosen one marked.

    Args:
        found: the trainings of each technique.
    """
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    for (value, trials), color in zip(found.items(), SWEEP_COLORS, strict=False):
        rates = [each.learning_rate for each in trials.tried]
        scores = [np.nan if each.score is None else each.score for each in trials.tried]
        axes.semilogx(rates, scores, "o-", markersize=4, color=color, label=value)
        axes.plot(trials.learning_rate, max(scores, key=lambda each: np.nan_to_num(each)), "o", markersize=11,
                  markerfacecolor="none", color=color)  # fmt: skip
    axes.set(xlabel="learning rate", title="top-1 accuracy, validation, of the first seed (circled: chosen)")
    axes.grid(alpha=0.3, which="both")
    figure.legend(loc="outside right upper")
    return figure


def plot_gradient_norms(found: dict[str, Trials]) -> Figure:
    """Gradients by layer, before the first step and after the training, the geometric mean of the seeds.

    Args:
        found: the trainings of each technique, with lists "gradients_before" and "gradients_after" in their facts.
    """
    figure = Figure(figsize=(13, 5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    titles = {"gradients_before": "before the first step", "gradients_after": "after the training"}
    for axes, (name, title) in zip(panels, titles.items(), strict=True):
        for (value, trials), color in zip(found.items(), SWEEP_COLORS, strict=False):
            norms = np.array([each.facts[name] for each in trials.chosen if name in each.facts])
            if len(norms):
                means = np.exp(np.log(np.maximum(norms, 1e-12)).mean(axis=0))
                means[(norms == 0).any(axis=0)] = np.nan  # no point: there is no gradient
                axes.semilogy(range(1, len(means) + 1), means, "o-", markersize=4, color=color, label=value)
        axes.set(xlabel="layer", title=title)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("gradient of the weights (root mean square)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper")
    return figure


def plot_schedules(names: list[str], steps: int = 1000) -> Figure:
    """Learning rates over a training, as fractions of the highest.

    Args:
        names: of `SCHEDULES`.
        steps: of the training.
    """
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    places = np.unique(np.linspace(0, steps - 1, 200).astype(int))
    for name, color in zip(names, SWEEP_COLORS, strict=False):
        schedule = SCHEDULES[name](1.0, steps)
        rates = [float(schedule(each)) if callable(schedule) else schedule for each in places]
        axes.plot(places / steps, rates, color=color, label=name)
    axes.set(xlabel="fraction of the training", ylabel="learning rate / highest")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper")
    return figure
