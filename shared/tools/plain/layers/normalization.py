"""Normalization."""

import keras
from keras import layers


@keras.saving.register_keras_serializable("keras_recipes")
class BatchNormalization(layers.BatchNormalization):
    """Keras's batch normalization (Ioffe and Szegedy 2015, arXiv:1502.03167)."""
