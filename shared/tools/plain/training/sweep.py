"""Sweeps: many trainings in one run."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras

from shared.training.run import Run
from shared.training.sweep import Trials


class Outcome(NamedTuple):
    """What came of one training of a sweep."""

    setting: str
    learning_rate: float
    seed: int
    score: float | None  # on the validation data, the higher the better; None where the training diverged
    history: list[dict[str, float]]
    facts: dict[str, Any]
    seconds: float


class Sweep:
    """Trains by a recipe's function: from a setting, a learning rate, a seed and a phase to a model, a score, facts."""

    def __init__(
        self,
        run: Run,
        data: str,
        train: Callable[[str, float, int, str], tuple[keras.Model, float, dict[str, Any]]],
    ):
        self.run = run
        self.train = train
        self.seconds = 0.0

    def search(self, rates: dict[str, Sequence[float]], seeds: Sequence[int]) -> dict[str, Trials]:
        """Trains with each setting at its best learning rate, which the first seed chooses."""
        found = {}
        for setting, each in rates.items():
            tried = [self.outcome(setting, rate, seeds[0]) for rate in sorted(each)]
            best = max(tried, key=lambda outcome: -math.inf if outcome.score is None else outcome.score)
            others = [self.outcome(setting, best.learning_rate, seed) for seed in seeds[1:]]
            found[setting] = Trials(tried, [best, *others])
        return found

    def load_weights(self, outcome: Outcome, model: keras.Model) -> None:
        model.set_weights(outcome.facts["weights"])

    def outcome(self, setting: str, learning_rate: float, seed: int) -> Outcome:
        """Trains."""
        phase = "" if "" not in self.run.histories else f"{setting}-{learning_rate:g}-{seed}"
        model, score, facts = self.train(setting, learning_rate, seed, phase)
        history = self.run.histories[phase]
        if not math.isfinite(history[-1]["loss"]):
            score, facts = None, {}
        print(f"{setting}, learning rate {learning_rate:g}, seed {seed}: {score or 'diverged'}")
        return Outcome(setting, learning_rate, seed, score, history, facts | {"weights": model.get_weights()}, 0.0)
