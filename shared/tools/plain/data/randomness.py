"""Random numbers of the data."""

import numpy as np

PURPOSES = ("order", "window", "batch", "step", "noise", "labels", "tokens")


def random_stream(seed: int, purpose: str, *place: int) -> np.random.Generator:
    """NumPy's random numbers for a purpose at a place such as (epoch, batch), independent of those for any other."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(PURPOSES.index(purpose), *place)))
