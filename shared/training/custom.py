"""Custom training steps, for methods beyond `fit`: several models, higher-order gradients, other updates.

Write the step as eager code on tensors and Keras objects; `compiled_step` compiles it for TensorFlow, PyTorch or JAX.
`minimize` takes one optimizer step; `value_and_grad` returns gradients with respect to weights or inputs, of any order;
`substituted` runs a model with other weights. A complete example, adversarial training:

    import keras, numpy as np
    from keras import layers, ops
    from shared.backends.gradients import minimize
    from shared.backends.steps import compiled_step

    generator = keras.Sequential([keras.Input((8,)), layers.Dense(32, "relu"), layers.Dense(2)])
    critic = keras.Sequential([keras.Input((2,)), layers.Dense(32, "relu"), layers.Dropout(0.1), layers.Dense(1)])
    optimizers = {model: keras.optimizers.Adam(1e-3) for model in (generator, critic)}
    for model, optimizer in optimizers.items():
        optimizer.build(model.trainable_variables)  # creates the optimizer's variables before the first step

    @compiled_step
    def step(points, noise):
        def critic_loss():
            real, fake = critic(points, training=True), critic(generator(noise, training=True), training=True)
            return ops.mean(ops.softplus(-real) + ops.softplus(fake))

        def generator_loss():
            return ops.mean(ops.softplus(-critic(generator(noise, training=True), training=True)))

        return {
            "critic_loss": minimize(optimizers[critic], critic_loss, critic.trainable_variables),
            "generator_loss": minimize(optimizers[generator], generator_loss, generator.trainable_variables),
        }

    rng = np.random.default_rng(0)
    for number in range(1000):
        losses = step(rng.normal((3, -1), size=(64, 2)), rng.normal(size=(64, 8)))
        if number % 100 == 0:  # reading a result synchronizes with the device
            print({name: float(loss) for name, loss in losses.items()})

In a recipe, `run.train` is the loop, as `run.fit` is otherwise: it saves, resumes, stops and records.

    state = {"generator": generator, "critic": critic, "generator_optimizer": optimizers[generator], …}
    run.train(step, batches, state, data="points 1")

Further: with `precision="mixed_float16"`, wrap the optimizer in a `keras.optimizers.LossScaleOptimizer`, and `minimize`
scales the loss. `clipnorm`, `weight_decay`, `use_ema` and `gradient_accumulation_steps` are options of the optimizer;
with `use_ema`, end with `optimizer.finalize_variable_values(variables)`. `update_averages` keeps an EMA of another
model, inside the step.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import keras

from shared.backends.normalization import weighted_mean
from shared.errors import UsageError
from shared.training.recorder import Recorder


def update_averages(averages: Sequence[keras.Variable], variables: Sequence[keras.Variable], decay: Any) -> None:
    """Exponential moving average (EMA): average ← decay · average + (1 − decay) · variable, inside a step.

    For the averaged weights of a generator, a target network, or the teacher of a student.

    Args:
        averages: the averages, such as `teacher.weights`.
        variables: the averaged variables, of the same shapes.
        decay: from 0 (copy) to 1 (no change).
    """
    for average, variable in zip(averages, variables, strict=True):
        average.assign(weighted_mean(average, variable, decay))


def check_state(state: dict[str, Any]) -> None:
    """Raises a UsageError unless everything in a training state can be saved and is built."""
    kinds = keras.layers.Layer, keras.optimizers.Optimizer, keras.metrics.Metric
    for name, part in state.items():
        if not isinstance(part, (*kinds, keras.random.SeedGenerator, keras.Variable)):
            raise UsageError(f"{name} is not a model, optimizer, metric, seed generator or variable, but {type(part)}")
        if isinstance(part, keras.layers.Layer) and not part.built:
            raise UsageError(f"{name} is not built: call it once on some inputs before the training")
        if isinstance(part, keras.optimizers.Optimizer) and not part.built:
            raise UsageError(f"{name} is not built: call {name}.build(model.trainable_variables) before the training")


def models_together(state: dict[str, Any]) -> keras.Model:
    """The models of a training state as one model, whose weights can be saved and loaded; a single one as it is."""
    models = {name: part for name, part in state.items() if isinstance(part, keras.layers.Layer)}
    if len(models) == 1 and isinstance(only := next(iter(models.values())), keras.Model):
        return only
    together = keras.Model(name="models")
    for name, model in models.items():
        setattr(together, name, model)
    together.built = True
    return together


def train_epochs(
    step: Callable[..., dict[str, Any]],
    recorder: Recorder,
    start: tuple[int, int],
    epochs: int,
    after_epoch: Callable[[int], dict[str, float] | None] | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Training loop of a custom step, with a progress bar; see `Run.train`.

    Args:
        step: function from the arrays of a batch to scalars by name.
        recorder: of this training.
        start: epoch and batch to start at.
        epochs: total number of epochs.
        after_epoch: called with the number of finished epochs; returns further scalars by name, or None.
        callbacks: further callbacks, called as by `fit`, but with logs that are still on the device.
    """
    batches, on_screen = recorder.batches, sys.stdout.isatty()
    callbacks = [*recorder.callbacks, *callbacks]  # no `CallbackList`, which synchronizes after each step
    first_epoch, batches.first = start
    for epoch in range(first_epoch, epochs):
        reset_metrics(recorder.state)
        for each in callbacks:
            each.on_epoch_begin(epoch)
        print(f"Epoch {epoch + 1}/{epochs}")
        bar = keras.utils.Progbar(len(batches), verbose=1 if on_screen else 2, stateless_metrics=())
        results = {}
        for index in range(len(batches)):
            for each in callbacks:
                each.on_train_batch_begin(index)
            shown, results = results, step(*batches[index])
            for each in callbacks:
                each.on_train_batch_end(index, results)
            if on_screen:  # the results of the previous step: reading those of this one would synchronize
                bar.update(index, as_floats(shown))
        row = as_floats(results)
        if after_epoch:
            for each in callbacks:
                each.on_test_begin()
            row += (after_epoch(epoch + 1) or {}).items()
        bar.update(len(batches), row, finalize=True)
        for each in callbacks:
            each.on_epoch_end(epoch, dict(row))
        batches.first = 0


def reset_metrics(state: dict[str, Any]) -> None:
    """Resets the metrics of a training state."""
    for part in state.values():
        if isinstance(part, keras.metrics.Metric):
            part.reset_state()


def as_floats(results: dict[str, Any]) -> list[tuple[str, float]]:
    """Results of a step as pairs of name and number, sorted by name."""
    return [(name, float(value)) for name, value in sorted(results.items())]
