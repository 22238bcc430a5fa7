"""Sampling from a GAN's generator, after each epoch and in the end."""

import sys

import keras
import numpy as np

from shared.backends.compiling import compiled_model
from shared.data.images.datasets import ImageData
from shared.data.randomness import random_stream
from shared.generative.metrics import COLLAPSED, diversity
from shared.generative.pixels import shown_image
from shared.generative.plots import animate_sheets, image_grid, save_sheet
from shared.training.run import Run


class NoiseSampler:
    """Samples images from noise, drawn by NumPy, so that every backend makes the same images up to rounding.

    Args:
        model: from a dictionary of "noise" (batch, latent) and "label" (batch,) to images (batch, height, width,
            channels), -1 to 1.
        latent: size of the noise vector.
        conditional: whether to pass the labels; if not, they are all 0.
        batch_size: images per batch.
        seed: of the noise.
    """

    def __init__(self, model: keras.Model, latent: int, conditional: bool, batch_size: int, seed: int):
        self.generate = compiled_model(model)
        self.latent = latent
        self.conditional = conditional
        self.batch_size = batch_size
        self.seed = seed

    def noise(self, count: int) -> np.ndarray:
        """Noise (count, latent), always the same."""
        return random_stream(self.seed, "noise").standard_normal((count, self.latent), np.float32)

    def images(self, noise: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Images (examples, height, width, channels) in uint8, from noise (examples, latent) and labels (examples,)."""
        whole = -(-len(labels) // self.batch_size) * self.batch_size  # one shape, so that it compiles once
        noise = np.resize(noise, (whole, self.latent))
        labels_given = np.resize(labels * self.conditional, whole).astype(np.int32)
        parts = [slice(start, start + self.batch_size) for start in range(0, whole, self.batch_size)]
        images = [self.generate({"noise": noise[part], "label": labels_given[part]}) for part in parts]
        return shown_image(np.concatenate(images)[: len(labels)])

    def __call__(self, labels: np.ndarray) -> np.ndarray:
        """Images from fixed noise, one for each label."""
        return self.images(self.noise(len(labels)), labels)

    def between(self, labels: np.ndarray, stages: int) -> np.ndarray:
        """Latent interpolation within each label: (labels, stages, height, width, channels) in uint8."""
        noise = interpolated_noise(*np.split(self.noise(2 * len(labels)), 2), stages)
        images = self.images(noise.reshape(-1, noise.shape[-1]), np.repeat(labels, stages))
        return images.reshape(*noise.shape[:2], *images.shape[1:])


def interpolated_noise(first: np.ndarray, second: np.ndarray, stages: int) -> np.ndarray:
    """Spherical interpolation (slerp) of noise (White 2016, arXiv:1609.04468, section 2.1).

    It stays on the arc around 0, since normal noise has nearly the same norm everywhere.

    Args:
        first: (examples, latent), not 0.
        second: the same shape.
        stages: number of points, first and second included.

    Returns:
        (examples, stages, latent).
    """
    first, second = first[:, None], second[:, None]
    lengths = np.linalg.norm(first, axis=-1, keepdims=True) * np.linalg.norm(second, axis=-1, keepdims=True)
    cosine = np.sum(first * second, axis=-1, keepdims=True) / lengths
    angle = np.maximum(np.arccos(np.clip(cosine, -1, 1)), 1e-4)  # equal vectors have no arc
    t = np.linspace(0, 1, stages, dtype=first.dtype)[:, None]
    return (np.sin((1 - t) * angle) * first + np.sin(t * angle) * second) / np.sin(angle)


class EpochSheets:
    """After each epoch, saves a sheet of samples from fixed noise and checks for mode collapse.

    Args:
        run: the run; sheets are saved to its folder `epochs`.
        sampler: of the generator.
        data: real images.
    """

    def __init__(self, run: Run, sampler: NoiseSampler, data: ImageData):
        self.run = run
        self.sampler = sampler
        self.real = data.train.first(500)
        self.rows = min(len(data.classes), 10)
        noise = sampler.noise(10 * self.rows)
        # One row per class, from the same noise: what does not depend on the class should be alike down a column.
        self.noise = np.tile(noise[:10], (self.rows, 1)) if sampler.conditional else noise

    def __call__(self, epoch: int) -> dict[str, float]:
        images = self.sampler.images(self.noise, np.repeat(np.arange(self.rows), 10))
        path = self.run.directory / "epochs" / f"{epoch:04}.png"
        save_sheet(path, image_grid(images, columns=10))
        self.run.tracking.figure(path, epoch, "epochs")
        found = diversity(self.sampler(self.real.labels), self.real.images)
        if found < COLLAPSED <= max((row["diversity"] for row in self.run.history), default=0.0):
            warn_if_collapsed(found)
        return {"diversity": found}

    def animate(self) -> None:
        """Writes training.gif, an animation of the sheets."""
        sheets = sorted((self.run.directory / "epochs").glob("[0-9]*.png"))
        if sheets:  # the native baseline writes none
            animate_sheets(self.run.directory / "training.gif", sheets)


def warn_if_collapsed(found: float) -> bool:
    """Whether a generator has suffered mode collapse; if so, prints a warning to stderr.

    Args:
        found: the `diversity` of its images.
    """
    if found >= COLLAPSED:
        return False
    remedy = "try more --epochs, another --seed or a lower --learning-rate"
    print(f"WARNING: mode collapse: the generated images have {found:.2f} of the diversity of real ones: {remedy}",
          file=sys.stderr)  # fmt: skip
    return True
