"""LSTM and GRU."""

import keras
from keras import layers


@keras.saving.register_keras_serializable("keras_recipes")
class FusedLSTM(layers.LSTM):
    """Keras's LSTM (Hochreiter and Schmidhuber 1997)."""


@keras.saving.register_keras_serializable("keras_recipes")
class FusedGRU(layers.GRU):
    """Keras's GRU (Cho et al. 2014, arXiv:1406.1078)."""
