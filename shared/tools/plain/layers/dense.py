"""Dense layers."""

import keras
from keras import layers


@keras.saving.register_keras_serializable("keras_recipes")
class SequenceDense(layers.Dense):
    """Keras's dense layer."""
