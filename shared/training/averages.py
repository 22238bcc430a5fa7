"""Exponential moving average (EMA) of the weights of a model that `fit` trains."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from shared.backends.runtime import non_trainable_values
from shared.backends.steps import compiled_step


def averages_weights(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether an optimizer, or the one inside a `LossScaleOptimizer`, averages the weights."""
    return getattr(optimizer, "inner_optimizer", optimizer).use_ema


class AveragedWeights(keras.callbacks.Callback):
    """Exponential moving average (EMA) of weights and statistics, used for validation and at the end of training.

    The optimizer, made with `use_ema=True`, averages the trainable weights. Batch normalization's moving mean and
    variance are averaged with the same momentum, in one compiled operation per step.

    Args:
        model: compiled, with a built optimizer that averages.
    """

    def __init__(self, model: keras.Model):
        super().__init__()
        self.trained = model  # Keras's own attribute `model` would bring every variable up to date at each use on JAX
        self.optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        floats = [keras.backend.is_float_dtype(variable.dtype) for variable in model.non_trainable_variables]
        self.indices = [index for index, is_float in enumerate(floats) if is_float]
        """Of the statistics among the model's non-trainable variables; the others are seeds."""
        statistics = [model.non_trainable_variables[index] for index in self.indices]
        self.averages = [keras.Variable("zeros", each.shape, each.dtype, trainable=False) for each in statistics]
        weight_averages = self.optimizer._model_variables_moving_average
        self.pairs = [
            *zip(model.trainable_variables, weight_averages, strict=True),
            *zip(statistics, self.averages, strict=True),
        ]
        self.move_averages = compiled_step(self.moved)
        self.started = False

    def moved(self, *statistics: Any) -> None:
        """Updates the averages of the statistics; the average of an unchanged one stays the same, bit for bit."""
        for average, value in zip(self.averages, statistics, strict=True):
            average.assign(average + (1 - self.optimizer.ema_momentum) * (value - average))

    def swap(self) -> None:
        """Swaps the model's weights and statistics with the averages."""
        for variable, average in self.pairs:
            value = keras.ops.copy(variable.value)
            variable.assign(average.value)
            average.assign(value)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Context in which the model has the averages as weights and statistics."""
        self.swap()
        yield
        self.swap()

    def finish(self) -> None:
        """Sets the model's weights and statistics to the averages, at the end of training."""
        for variable, average in self.pairs:
            variable.assign(keras.ops.copy(average.value))  # not shared memory, which `predict` takes over on JAX

    def on_train_begin(self, logs=None):
        self.started = int(self.optimizer.iterations) > 0

    def on_train_batch_end(self, batch, logs=None):
        if not self.indices:
            return
        values = non_trainable_values(self.trained)
        statistics = [values[index] for index in self.indices]
        if self.started:
            self.move_averages(*statistics)
        else:  # as in the optimizer, the averages start with the values after the first step
            for average, value in zip(self.averages, statistics, strict=True):
                average.assign(keras.ops.copy(value))
            self.started = True

    def on_test_begin(self, logs=None):
        self.swap()

    def on_test_end(self, logs=None):
        self.swap()

    def on_train_end(self, logs=None):
        self.finish()
