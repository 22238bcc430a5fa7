"""What a training begins with."""

import keras


def seed_everything(seed: int) -> None:
    """Seeds the initial weights, and whatever the backend draws."""
    keras.utils.set_random_seed(seed)
