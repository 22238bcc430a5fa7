"""Initial weights, as Keras draws them."""

from keras.initializers import RandomNormal  # noqa: F401 - for the copies
