"""Sweeps: many trainings in one run, each kept when it ends, so that a run that was stopped goes on with the next."""

import json
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from shared.errors import UsageError
from shared.files import replacing
from shared.training.checkpoint import read_archive
from shared.training.divergence import Diverged
from shared.training.run import Run


class Outcome(NamedTuple):
    """What came of one training of a sweep."""

    setting: str
    """What it tried."""
    learning_rate: float
    seed: int
    score: float | None
    """On the validation data, the higher the better; None where the training diverged."""
    history: list[dict[str, float]]
    """Losses and metrics of each epoch."""
    facts: dict[str, Any]
    """What else the recipe measured."""
    seconds: float
    """Training and validation, those before a resume included."""

    @property
    def name(self) -> str:
        """The name of its files."""
        return f"{self.setting}-{self.learning_rate:g}-{self.seed}"


class Trials(NamedTuple):
    """The trainings of one setting."""

    tried: list[Outcome]
    """Each learning rate, with the first seed."""
    chosen: list[Outcome]
    """Each seed, with the best learning rate."""

    @property
    def learning_rate(self) -> float:
        """The best one."""
        return self.chosen[0].learning_rate

    @property
    def at_edge(self) -> bool:
        """Whether it is the lowest or the highest that was tried, so that one beyond it may be better."""
        return rate_beyond([each.learning_rate for each in self.tried], self.learning_rate) is not None

    @property
    def score(self) -> float:
        """The mean over the seeds; −∞ where one of them diverged."""
        scores = [each.score for each in self.chosen]
        return -math.inf if None in scores else statistics.mean(scores)


def rate_beyond(rates: Sequence[float], best: float) -> float | None:
    """The learning rate beyond the lowest or the highest of ascending `rates`, where that is `best`; else None."""
    if len(rates) > 1 and best in (rates[0], rates[-1]):
        neighbour = rates[1] if best == rates[0] else rates[-2]
        return float(f"{best**2 / neighbour:.6g}")
    return None


class Sweep:
    """Trains by a recipe's function, the first time as the main training of the run, then as phases beside it.

    What comes of a training lies in `trainings`, as a JSON file and its weights as .npz. Then its checkpoints, by which
    it is resumed in the middle, are deleted.

    Args:
        run: the run.
        data: name and fingerprint of the data.
        train: function from a setting, a learning rate, a seed and the name of a phase, for `run.fit`, to the trained
            model, its score and other facts.

    Raises:
        UsageError: what is kept of an earlier process was trained on other data, by other versions, or for fewer
            epochs.
    """

    def __init__(
        self,
        run: Run,
        data: str,
        train: Callable[[str, float, int, str], tuple[keras.Model, float, dict[str, Any]]],
    ):
        self.run = run
        self.total = 0
        self.train = train
        self.directory = run.directory / "trainings"
        self.outcomes: list[Outcome] = []
        self.check_identity({"data": data, "epochs": run.config.epochs, **run.versions()})

    def check_identity(self, identity: dict[str, Any]) -> None:
        """Notes on what and how the trainings are, or compares it with what was noted."""
        path = self.directory / "identity.json"
        self.directory.mkdir(exist_ok=True)
        if not path.exists():
            with replacing(path) as unfinished:
                unfinished.write_text(json.dumps(identity, indent=1) + "\n", encoding="utf-8")
        before = json.loads(path.read_text(encoding="utf-8"))
        for name, value in identity.items():
            if before.get(name) != value:
                raise UsageError(
                    f"the {name} of the trainings in {self.directory} is {before.get(name)}, here it is {value}: take "
                    "another --out"
                )

    @property
    def seconds(self) -> float:
        """Of all trainings so far, those before a resume included."""
        return sum(each.seconds for each in self.outcomes)

    def search(self, rates: dict[str, Sequence[float]], seeds: Sequence[int], further: int = 0) -> dict[str, Trials]:
        """Trains with each setting, a seed at its best learning rate; see `trials_of`.

        Args:
            rates: the learning rates to try, by setting.
            seeds: of the trainings.
            further: how many more learning rates to try of a setting, while the best is the lowest or the highest.
        """
        self.total = sum(len(each) + len(seeds) - 1 for each in rates.values())
        return {setting: self.trials_of(setting, each, seeds, further) for setting, each in rates.items()}

    def trials_of(self, setting: str, rates: Sequence[float], seeds: Sequence[int], further: int) -> Trials:
        """Trains with each learning rate on the first seed, chooses the one of the best score, the lowest of equal
        ones, and trains with that on the other seeds.
        """
        tried = [self.outcome(setting, rate, seeds[0]) for rate in sorted(rates)]
        while True:
            best = max(tried, key=lambda each: -math.inf if each.score is None else each.score)
            rate = rate_beyond([each.learning_rate for each in tried], best.learning_rate)
            if rate is None or len(tried) == len(rates) + further:
                break
            self.total += 1
            tried.append(self.outcome(setting, rate, seeds[0]))
            tried.sort(key=lambda each: each.learning_rate)
        for each in tried:
            if each is not best:
                self.weights_path(each.name).unlink(missing_ok=True)
        return Trials(tried, [best, *(self.outcome(setting, best.learning_rate, seed) for seed in seeds[1:])])

    def outcome(self, setting: str, learning_rate: float, seed: int) -> Outcome:
        """Trains, unless that was done before the run was resumed."""
        outcome = Outcome(setting, learning_rate, seed, None, [], {}, 0.0)
        if not self.outcomes:  # the main training: opened again at a resume, from its last checkpoint
            outcome = self.trained(outcome, "")
        else:
            outcome = self.read(outcome) or self.trained(outcome, outcome.name)
            self.run.close(outcome.name)
        self.outcomes.append(outcome)
        return outcome

    def trained(self, outcome: Outcome, phase: str) -> Outcome:
        """Trains, and keeps what came of it."""
        model, facts, score = None, {}, None
        try:
            model, score, facts = self.train(outcome.setting, outcome.learning_rate, outcome.seed, phase)
            said = f"{score:.4f} on the validation data"
        except Diverged as error:
            facts = {"diverged": str(error)}
            said = "diverged"
        recorder = self.run.recorders[phase]
        seconds = recorder.checkpoints.train_seconds
        outcome = outcome._replace(score=score, history=recorder.history, facts=facts, seconds=seconds)
        if model:
            with replacing(self.weights_path(outcome.name)) as path:
                np.savez(path, *model.get_weights())
        with replacing(self.directory / f"{outcome.name}.json") as path:
            path.write_text(json.dumps(outcome._asdict()) + "\n", encoding="utf-8")
        number = f"training {len(self.outcomes) + 1} of {self.total}"
        print(f"{number}: {outcome.setting}, learning rate {outcome.learning_rate:g}, seed {outcome.seed}: {said}")
        return outcome

    def read(self, outcome: Outcome) -> Outcome | None:
        """What is kept of the same training; None where nothing is."""
        path = self.directory / f"{outcome.name}.json"
        if not path.exists():
            return None
        try:
            return Outcome(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            print(f"refused {path}, training anew: {error}", file=sys.stderr)
            return None

    def weights_path(self, name: str) -> Path:
        """Where the weights of a training are kept."""
        return self.directory / f"{name}.npz"

    def load_weights(self, outcome: Outcome, model: keras.Model) -> None:
        """Gives a model the weights that a training ended with.

        Raises:
            UsageError: their file is missing or damaged.
        """
        path = self.weights_path(outcome.name)
        try:
            arrays = read_archive(path)
            model.set_weights([arrays[f"arr_{index}"] for index in range(len(arrays))])
        except (OSError, ValueError, KeyError) as error:
            json_path = path.with_suffix(".json")
            raise UsageError(f"{path} is damaged ({error}): delete it and {json_path}, and resume") from None
