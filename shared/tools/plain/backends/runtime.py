"""What a training begins with, and copies of models."""

import keras


def copied_model(model: keras.Model) -> keras.Model:
    """Another model of the same layers, with weights of its own, which are equal now."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def seed_everything(seed: int) -> None:
    """Seeds the initial weights, and whatever the backend draws."""
    keras.utils.set_random_seed(seed)
