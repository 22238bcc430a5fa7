"""Random numbers that NumPy draws on the host: the same on every backend, in every process and after a resume."""

import numpy as np

RANDOM_PURPOSES = ("order", "window", "batch", "step", "noise", "labels", "tokens")
"""What random numbers are drawn for; a new purpose goes to the end, for each one's place makes its numbers.

"order": the order of the examples, of (epoch,) or (pass over the data,); "window": where a text is cut, of (epoch,);
"batch": augmentation and noise of a batch, of (epoch, batch); "step": what the backend draws in a training step, of
(epoch, batch); "noise": what generated images are made of, of (batch,) or (); "labels": what they are asked to show;
"tokens": the sampling of text.
"""


def random_stream(seed: int, purpose: str, *place: int) -> np.random.Generator:
    """The random numbers for one purpose at one place of a run, independent of those for any other.

    Not `default_rng([seed, *place])`: zeros at the end of such a list change nothing, so that different places and
    purposes share a stream.

    Args:
        seed: of the run.
        purpose: one of `RANDOM_PURPOSES`.
        place: such as the epoch and the batch.
    """
    key = (RANDOM_PURPOSES.index(purpose), *place)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
