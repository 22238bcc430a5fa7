"""The perceptron (Rosenblatt 1958): a line between two classes, moved at each mistake."""

from typing import NamedTuple

import numpy as np


class Perceptron(NamedTuple):
    """A perceptron after each epoch of its training."""

    lines: list[tuple[np.ndarray, float]]
    """Weights w and bias b; the second class lies where w · x + b > 0."""
    mistakes: list[int]
    """Number of corrections in each epoch."""
    accuracies: list[float]
    """On the training examples, after each epoch."""

    @property
    def best(self) -> int:
        """The epoch of the highest accuracy: unless a line separates the classes, the last one may be a bad one."""
        return int(np.argmax(self.accuracies))

    def accuracy(self, x: np.ndarray, t: np.ndarray) -> float:
        """Fraction of the points x (examples, features) with targets t, −1 or 1, on their side of the best line."""
        w, b = self.lines[self.best]
        return float(np.mean(t * (x @ w + b) > 0))


def train_perceptron(x: np.ndarray, t: np.ndarray, epochs: int) -> Perceptron:
    """Rosenblatt's rule, example by example.

    Args:
        x: (examples, features).
        t: (examples,), the target of each, −1 or 1.
        epochs: passes over the examples; without a mistake in one, it ends.
    """
    mean, deviation = x.mean(axis=0), x.std(axis=0) + 1e-9
    found = Perceptron([], [], [])
    w, b = np.zeros(x.shape[1]), 0.0
    for _ in range(epochs):
        mistakes = 0
        for x_i, t_i in zip((x - mean) / deviation, t, strict=True):
            if t_i * (w @ x_i + b) <= 0:  # on the wrong side of the line: move the line towards it
                w, b = w + t_i * x_i, b + t_i
                mistakes += 1
        line = w / deviation, b - w @ (mean / deviation)  # the same line for x as it is
        found.lines.append(line)
        found.mistakes.append(mistakes)
        found.accuracies.append(float(np.mean(t * (x @ line[0] + line[1]) > 0)))
        if not mistakes:
            break
    return found
