"""Spectral normalization."""

import keras
from keras import layers, ops

from shared.backends.gradients import substituted


@keras.saving.register_keras_serializable("keras_recipes")
class SpectralNormalization(layers.Wrapper):
    """Spectral normalization (Miyato et al. 2018, arXiv:1802.05957): divides a kernel by its largest singular value.

    A dense layer then has a Lipschitz constant of at most 1. The kernel of a convolution is reshaped to (height · width
    · channels, filters). The singular value is estimated by one step of power iteration per training call, as in the
    paper's algorithm 1, starting from the vector of the previous call. Keras's layer of this name overwrites the kernel
    with the divided one, in the middle of a gradient; here gradients flow through the division to the kernel.

    Args:
        layer: with a `kernel` or `embeddings`, such as Dense, Conv2D or Embedding.

    Input and output: the shapes of the layer.
    """

    def __init__(self, layer, **kwargs):
        # The singular value needs float32; the wrapped layer casts its own inputs.
        super().__init__(layer, **kwargs | {"autocast": False, "dtype": "float32"})

    @property
    def weight(self):
        """The variable to normalize."""
        return self.layer.kernel if hasattr(self.layer, "kernel") else self.layer.embeddings

    def build(self, input_shape):
        super().build(input_shape)
        self.direction = self.add_weight(
            shape=(self.weight.shape[-1],), initializer="random_normal", trainable=False, name="direction"
        )

    def call(self, inputs, training=None):
        kernel = ops.convert_to_tensor(self.weight)
        matrix = ops.reshape(kernel, (-1, kernel.shape[-1]))
        fixed = ops.stop_gradient(matrix)
        right = ops.normalize(self.direction, epsilon=1e-12)
        left = ops.normalize(ops.matmul(fixed, right), epsilon=1e-12)
        if training:
            right = ops.normalize(ops.matmul(left, fixed), epsilon=1e-12)
            self.direction.assign(right)
        singular_value = ops.dot(left, ops.matmul(matrix, right))
        with substituted([self.weight], [kernel / ops.maximum(singular_value, 1e-12)]):
            return self.layer(inputs)

    def compute_output_shape(self, input_shape):
        return self.layer.compute_output_shape(input_shape)
