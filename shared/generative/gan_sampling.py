"""Images that a generator makes of noise, after each epoch and in the end."""

import sys

import keras
import numpy as np

from shared.data.images.datasets import ImageData
from shared.data.randomness import random_stream
from shared.generative.metrics import COLLAPSED, diversity
from shared.generative.pixels import shown_image
from shared.generative.plots import animate_sheets, image_grid, save_sheet
from shared.training.run import Run


class NoiseSampler:
    """Draws images of noise. NumPy draws the noise, so that every backend gives the same images up to rounding.

    Args:
        model: from noise (batch, latent) and labels (batch,), as a dictionary with the keys "noise" and "label", to
            images (batch, height, width, channels), -1 to 1.
        latent: how many numbers an image is made from.
        conditional: whether it is told the labels; if not, they are all 0.
        batch_size: images at a time.
        seed: of the noise.
    """

    def __init__(self, model: keras.Model, latent: int, conditional: bool, batch_size: int, seed: int):
        self.model = model
        self.latent = latent
        self.conditional = conditional
        self.batch_size = batch_size
        self.seed = seed

    def noise(self, count: int) -> np.ndarray:
        """Noise (count, latent), always the same."""
        return random_stream(self.seed, "noise").standard_normal((count, self.latent), np.float32)

    def images(self, noise: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Images (examples, height, width, channels) in uint8, of noise (examples, latent) and labels (examples,)."""
        whole = -(-len(labels) // self.batch_size) * self.batch_size  # so that one program does for all
        inputs = {
            "noise": np.resize(noise, (whole, self.latent)),
            "label": np.resize(labels * self.conditional, whole).astype(np.int32),
        }
        return shown_image(self.model.predict(inputs, batch_size=self.batch_size, verbose=0)[: len(labels)])

    def __call__(self, labels: np.ndarray) -> np.ndarray:
        """Images of always the same noise, one for each label."""
        return self.images(self.noise(len(labels)), labels)

    def between(self, labels: np.ndarray, stages: int) -> np.ndarray:
        """From an image of each label to another: (labels, stages, height, width, channels) in uint8."""
        noise = interpolated_noise(*np.split(self.noise(2 * len(labels)), 2), stages)
        images = self.images(noise.reshape(-1, noise.shape[-1]), np.repeat(labels, stages))
        return images.reshape(*noise.shape[:2], *images.shape[1:])


def interpolated_noise(first: np.ndarray, second: np.ndarray, stages: int) -> np.ndarray:
    """Noise from one to another, along the arc around 0, since noise is about equally far from 0 everywhere.

    Spherical interpolation (White 2016, arXiv:1609.04468, section 2.1).

    Args:
        first: (examples, latent), not 0.
        second: the same.
        stages: from the first to the second, both included.

    Returns:
        (examples, stages, latent).
    """
    first, second = first[:, None], second[:, None]
    lengths = np.linalg.norm(first, axis=-1, keepdims=True) * np.linalg.norm(second, axis=-1, keepdims=True)
    cosine = np.sum(first * second, axis=-1, keepdims=True) / lengths
    angle = np.maximum(np.arccos(np.clip(cosine, -1, 1)), 1e-4)  # between equal ones there is no arc
    share = np.linspace(0, 1, stages, dtype=first.dtype)[:, None]
    return (np.sin((1 - share) * angle) * first + np.sin(share * angle) * second) / np.sin(angle)


class EpochSheets:
    """What is done after each epoch of a generator: draws a sheet of always the same noise, and looks for collapse.

    Args:
        run: whose folder `epochs` the sheets go to.
        sampler: of the generator.
        data: real images.
    """

    def __init__(self, run: Run, sampler: NoiseSampler, data: ImageData):
        self.run = run
        self.sampler = sampler
        self.real = data.train.first(500)
        self.rows = min(len(data.classes), 10)
        noise = sampler.noise(10 * self.rows)
        # A row a class, all of the same noise: what is not of the class should be alike down a column.
        self.noise = np.tile(noise[:10], (self.rows, 1)) if sampler.conditional else noise

    def __call__(self, epoch: int) -> dict[str, float]:
        images = self.sampler.images(self.noise, np.repeat(np.arange(self.rows), 10))
        save_sheet(self.run.directory / "epochs" / f"{epoch:04}.png", image_grid(images, columns=10))
        found = diversity(self.sampler(self.real.labels), self.real.images)
        if found < COLLAPSED <= max((row["diversity"] for row in self.run.history), default=0.0):
            warn_if_collapsed(found)
        return {"diversity": found}

    def animate(self) -> None:
        """Writes training.gif, the sheets one after the other."""
        sheets = sorted((self.run.directory / "epochs").glob("[0-9]*.png"))
        if sheets:  # the native baseline leaves none
            animate_sheets(self.run.directory / "training.gif", sheets)


def warn_if_collapsed(found: float) -> bool:
    """Whether a generator has collapsed, which is then said in a line on stderr.

    Args:
        found: the `diversity` of its images.
    """
    if found >= COLLAPSED:
        return False
    remedy = "try more --epochs, another --seed or a lower --learning-rate"
    print(f"WARNING: the generator has collapsed, to {found:.2f} of the diversity of real images: {remedy}",
          file=sys.stderr)  # fmt: skip
    return True
