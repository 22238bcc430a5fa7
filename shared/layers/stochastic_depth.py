"""Stochastic depth."""

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable("keras_recipes")
class StochasticDepth(layers.Layer):
    """Stochastic depth, drop path: drops a residual branch for some examples (Huang et al. 2016, arXiv:1603.09382).

    A branch that is kept is divided by its probability, so that nothing has to be scaled at inference.

    Args:
        rate: probability that the branch of an example is dropped in training, below 1.
        seed: of the layer's random numbers; None for one that Keras draws.

    Input and output: (batch, …), what a branch adds to its input.
    """

    def __init__(self, rate, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.rate = float(rate)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs, training=None):
        if not training or not self.rate:
            return inputs
        examples = (ops.shape(inputs)[0], *[1] * (len(inputs.shape) - 1))
        kept = keras.random.uniform(examples, dtype="float32", seed=self.seed_generator) >= self.rate
        return inputs * ops.cast(kept, inputs.dtype) / (1 - self.rate)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {"rate": self.rate, "seed": self.seed}
