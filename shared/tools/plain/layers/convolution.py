"""Convolutions."""

import keras
from keras import layers


@keras.saving.register_keras_serializable("keras_recipes")
class Convolution(layers.Conv2D):
    """Keras's convolution with a square kernel, same padding and without bias."""

    def __init__(self, filters, kernel_size, strides=1, **kwargs):
        super().__init__(filters, kernel_size, strides, **{"padding": "same", "use_bias": False} | kwargs)
