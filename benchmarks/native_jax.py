"""What the native JAX baselines share: weights by path, operations, optimizers, and the trainer."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def split_weights(model):
    """Trainable weights of a Keras model, and its others, by path."""
    trained, others = {}, {}
    for weight, value in zip(model.weights, model.get_weights(), strict=True):
        # A copy: the step takes the memory of its state, and Keras may hold the same.
        (trained if weight.trainable else others)[weight.path] = jnp.array(value, copy=True)
    return trained, others


def weights_under(weights, name):
    """The weights of a layer, by path within it."""
    return {path.removeprefix(f"{name}/"): value for path, value in weights.items() if path.startswith(f"{name}/")}


def dense(weights, name, x):
    return x @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]


def convolution(x, kernel, stride=1):
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )  # fmt: skip


def attention(weights, x, memory, heads, **options):
    """Multi-head attention from x (batch, n, channels) to a memory (batch, m, channels)."""

    def split(x):
        return x.reshape(*x.shape[:2], heads, -1)

    keys, values = jnp.split(dense(weights, "key_value", memory), 2, axis=-1)
    found = jax.nn.dot_product_attention(
        split(dense(weights, "query", x)), split(keys), split(values), **options
    )  # fmt: skip
    return dense(weights, "output", found.reshape(x.shape))


def depth_to_space(x, size):
    """(batch, rows, columns, size · size · channels) to (batch, size · rows, size · columns, channels)."""
    batch, rows, columns, channels = x.shape
    x = x.reshape(batch, rows, columns, size, size, channels // size**2).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, size * rows, size * columns, channels // size**2)


class NesterovSGD:
    """SGD with Nesterov momentum as Keras has it, and decoupled weight decay of all but biases and normalization.

    Args:
        rate: learning rate, a function of the step.
        weight_decay: times the learning rate, in each step.
        momentum: decay rate of the sum of the steps.
    """

    def __init__(self, rate, weight_decay=0.0, momentum=0.9):
        self.rate = rate
        self.weight_decay = weight_decay
        self.momentum = momentum

    def start(self, parameters):
        """State before the first step."""
        return jax.tree.map(jnp.zeros_like, parameters)

    def update(self, parameters, momenta, gradients, rate, step):
        """The parameters and the state after a step, counted from 0."""
        momenta = jax.tree.map(lambda m, g: self.momentum * m - rate * g, momenta, gradients)

        def updated(parameter, momentum, gradient):
            kept = 1 - rate * self.weight_decay if parameter.ndim > 1 else 1.0
            return parameter * kept + self.momentum * momentum - rate * gradient

        return jax.tree.map(updated, parameters, momenta, gradients), momenta


class Adam:
    """Adam as Keras has it: epsilon is added before the bias of the second moment is corrected.

    Args:
        rate: learning rate, a function of the step.
        betas: decay rates of the moments.
        epsilon: as in Keras.
    """

    def __init__(self, rate, betas=(0.9, 0.999), epsilon=1e-7):
        self.rate = rate
        self.betas = betas
        self.epsilon = epsilon

    def start(self, parameters):
        """State before the first step."""
        return jax.tree.map(jnp.zeros_like, parameters), jax.tree.map(jnp.zeros_like, parameters)

    def update(self, parameters, moments, gradients, rate, step):
        """The parameters and the state after a step, counted from 0."""
        first, second = self.betas
        rate = rate * jnp.sqrt(1 - second ** (step + 1)) / (1 - first ** (step + 1))
        means = jax.tree.map(lambda m, g: first * m + (1 - first) * g, moments[0], gradients)
        squares = jax.tree.map(lambda v, g: second * v + (1 - second) * g * g, moments[1], gradients)
        parameters = jax.tree.map(
            lambda p, m, v: p - rate * m / (jnp.sqrt(v) + self.epsilon), parameters, means, squares
        )  # fmt: skip
        return parameters, (means, squares)


def clipped(gradients, norm):
    """Gradients whose norm, all together, is at most `norm`."""
    total = jnp.sqrt(sum(jnp.sum(gradient**2) for gradient in jax.tree.leaves(gradients)))
    return jax.tree.map(lambda gradient: gradient * (norm / jnp.maximum(total, norm)), gradients)


class NativeTrainer:
    """Trains from the weights of a Keras model; a baseline adds its `loss`.

    Args:
        model: the Keras model.
        optimizer: of its trainable weights.
        clip: the largest norm of all gradients together.
        ema: decay rate of the exponential moving average of the trainable weights; 0 for none.
        seed: of dropout.
    """

    def __init__(self, model, optimizer, clip=None, ema=0.0, seed=0):
        self.optimizer = optimizer
        self.clip = clip
        self.ema = ema
        self.key = jax.random.key(seed)
        self.steps = 0
        self.paths = [weight.path for weight in model.weights]
        parameters, others = split_weights(model)
        averages = jax.tree.map(jnp.copy, parameters) if ema else None
        self.state = parameters, others, optimizer.start(parameters), averages
        self.step = jax.jit(self.next_state, donate_argnums=0)

    def loss(self, parameters, others, key, *batch):
        """The loss on a batch, a scalar, and the other weights after it.

        Args:
            parameters: trainable weights of the Keras model, by path.
            others: its other weights, such as running averages.
            key: of the step's random numbers.
            batch: arrays, or dictionaries of them.
        """
        raise NotImplementedError

    def next_state(self, state, rate, step, *batch):
        """One step, compiled: the state after it, and the loss."""
        parameters, others, slots, averages = state
        key = jax.random.fold_in(self.key, step)
        value_and_gradients = jax.value_and_grad(self.loss, has_aux=True)
        (loss, others), gradients = value_and_gradients(parameters, others, key, *batch)
        if self.clip:
            gradients = clipped(gradients, self.clip)
        parameters, slots = self.optimizer.update(parameters, slots, gradients, rate, step)
        if self.ema:
            kept = jnp.where(step > 0, self.ema, 0.0)  # as in Keras, they start with the weights after the first step
            averages = jax.tree.map(lambda a, p: kept * a + (1 - kept) * p, averages, parameters)
        return (parameters, others, slots, averages), loss

    def train_on_batch(self, *batch):
        """One step on a batch of arrays; returns the loss."""
        self.state, loss = self.step(self.state, self.optimizer.rate(self.steps), self.steps, *batch)
        self.steps += 1
        return loss

    def weights(self):
        """The weights that are measured, averaged with `ema`, in the order of the Keras model."""
        parameters, others, _, averages = self.state
        values = others | (averages if self.ema else parameters)
        return [np.asarray(values[path]) for path in self.paths]
