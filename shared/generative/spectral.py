"""Layers that cannot be steep."""

import keras
from keras import layers, ops

from shared.backends.gradients import substituted


@keras.saving.register_keras_serializable("keras_recipes")
class SpectralNormalization(layers.Wrapper):
    """Divides the kernel of a layer by its largest singular value (Miyato et al. 2018, arXiv:1802.05957).

    So no output of a dense layer moves by more than its input does. The kernel of a convolution is taken for the matrix
    (height · width · channels, filters). Its singular value is estimated by one step of power iteration in each call in
    training, as in the paper's algorithm 1, from where the call before it came to. Keras's layer of this name writes
    the divided kernel back in its place, and so changes a weight in the middle of a gradient; here the kernel stays the
    optimizer's, and gradients flow through the division.

    Args:
        layer: with a `kernel` or `embeddings`, such as Dense, Conv2D or Embedding.

    Input and output: those of the layer.
    """

    def __init__(self, layer, **kwargs):
        # In half precision the singular value would be lost; the layer inside casts for itself.
        super().__init__(layer, **kwargs | {"autocast": False, "dtype": "float32"})

    @property
    def weight(self):
        """The variable that is divided."""
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
