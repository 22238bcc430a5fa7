"""What the native JAX baselines share: the trainer, with SGD."""

import jax
import jax.numpy as jnp
import numpy as np


class NativeTrainer:
    """Trains by SGD with Nesterov momentum, from the weights of a Keras model; a baseline adds its `loss`.

    Args:
        model: the Keras model.
        rate: learning rate, a function of the step.
        weight_decay: of all but biases and normalization, times the learning rate, in each step.
        momentum: decay rate of the sum of the steps.
    """

    def __init__(self, model, rate, weight_decay, momentum=0.9):
        self.rate = rate
        self.weight_decay = weight_decay
        self.momentum = momentum
        self.steps = 0
        self.trained = [weight.trainable for weight in model.weights]
        parameters, averages = [], []
        for trained, weight in zip(self.trained, model.get_weights(), strict=True):
            # A copy: the step takes the memory of its state, and Keras may hold the same.
            (parameters if trained else averages).append(jnp.array(weight, copy=True))
        self.state = parameters, averages, [jnp.zeros_like(parameter) for parameter in parameters]
        self.step = jax.jit(self.next_state, donate_argnums=0)

    def loss(self, parameters, averages, *batch):
        """The loss on a batch, a scalar, and the new running averages.

        Args:
            parameters: trainable weights in the order of the Keras model.
            averages: its other weights.
            batch: arrays.
        """
        raise NotImplementedError

    def next_state(self, state, rate, *batch):
        """One step, compiled: the state after it, and the loss."""
        parameters, averages, momenta = state
        value_and_gradients = jax.value_and_grad(self.loss, has_aux=True)
        (loss, averages), gradients = value_and_gradients(parameters, averages, *batch)
        momenta = jax.tree.map(lambda m, g: self.momentum * m - rate * g, momenta, gradients)

        def updated(parameter, momentum, gradient):
            kept = 1 - rate * self.weight_decay if parameter.ndim > 1 else 1.0
            return parameter * kept + self.momentum * momentum - rate * gradient

        return (jax.tree.map(updated, parameters, momenta, gradients), averages, momenta), loss

    def train_on_batch(self, *batch):
        """One step on a batch of arrays; returns the loss."""
        self.state, loss = self.step(self.state, self.rate(self.steps), *batch)
        self.steps += 1
        return loss

    def weights(self):
        """The weights in the order of the Keras model."""
        parameters, averages = map(iter, self.state[:2])
        return [np.asarray(next(parameters if trained else averages)) for trained in self.trained]
