"""Sampling from a GAN's generator after each epoch."""

import numpy as np
from PIL import Image

from shared.data.images.datasets import ImageData
from shared.generative.gan_sampling import NoiseSampler
from shared.generative.plots import image_grid
from shared.training.run import Run


class EpochSheets:
    """Images from the same noise after each epoch, a row for each class, for an animation of the training."""

    def __init__(self, run: Run, sampler: NoiseSampler, data: ImageData):
        self.path = run.directory / "training.gif"
        self.sampler = sampler
        self.frames: list[Image.Image] = []
        self.labels = np.repeat(np.arange(min(len(data.classes), 10)), 10)
        noise = sampler.noise(len(self.labels))
        self.noise = np.resize(noise[:10], noise.shape) if sampler.conditional else noise

    def __call__(self, epoch: int) -> None:
        sheet = image_grid(self.sampler.images(self.noise, self.labels), columns=10)
        self.frames.append(Image.fromarray(sheet.squeeze()))

    def animate(self) -> None:
        self.frames[0].save(self.path, save_all=True, append_images=self.frames[1:], duration=200, loop=0)
