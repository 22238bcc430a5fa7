"""What a network costs: its multiply-adds."""

import math

import keras
from keras import layers

from shared.layers.convolution import DepthwiseConvolution


def multiply_adds(model: keras.Model) -> int:
    """Multiply-adds of convolutions and dense layers for one example, which papers often call FLOPs.

    Each is two floating-point operations. Biases, normalization, activation functions and pooling are not counted, as
    is common.

    Args:
        model: of layers that lie in it directly, of known sizes.

    Raises:
        TypeError: a layer is none of these and has a kernel.
    """
    return sum(layer_multiply_adds(layer) for layer in model.layers)


def layer_multiply_adds(layer: layers.Layer) -> int:
    """Multiply-adds of a layer for one example; 0 where it is neither convolution nor dense layer."""
    kernels = [weight for weight in layer.trainable_weights if len(weight.shape) > 1]
    if not kernels:
        return 0
    if not isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D | DepthwiseConvolution | layers.Dense):
        raise TypeError(f"the multiply-adds of {type(layer).__name__} are not known")
    if isinstance(layer, layers.DepthwiseConv2D | DepthwiseConvolution):
        per_output = math.prod(layer.kernel.shape[:2])
    else:
        per_output = math.prod(layer.kernel.shape[:-1])
    return per_output * math.prod(layer.output.shape[1:])
