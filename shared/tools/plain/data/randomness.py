"""Random numbers of the data."""

import numpy as np


def random_stream(seed: int, purpose: str, *position: int) -> np.random.Generator:
    """NumPy's random numbers for a purpose at a position such as (epoch, batch), independent of all others."""
    number = ("order", "window", "batch", "step", "noise", "labels", "tokens").index(purpose)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number, *position)))
