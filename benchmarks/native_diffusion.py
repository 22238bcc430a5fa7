"""What the native baselines of recipes/diffusion.py share: the U-Net's options and the loop of the sampler."""

from collections import deque
from types import SimpleNamespace

import numpy as np

from shared.data.randomness import random_stream
from shared.generative.pixels import shown_image
from shared.layers.resampling import SpaceToDepth


def unet_options(model):
    """The options that a U-Net of the recipe was built with: widths, depth, patch and attention."""
    names = [layer.name for layer in model.layers]
    levels = 1 + sum(f"down_{level}" in names for level in range(1, len(names)))
    return SimpleNamespace(
        widths=tuple(model.get_layer(f"down_{level}_0").filters for level in range(levels)),
        depth=sum(f"down_0_{index}" in names for index in range(len(names))),
        patch=next(layer.size for layer in model.layers if isinstance(layer, SpaceToDepth)),
        attention=sum(f"down_{level}_0_attention" in names for level in range(levels)),
    )


class NativeSampler:
    """Images as the recipe's `ImageSampler` makes them, from the same noise; a baseline adds `load` and `advance`.

    Args:
        model: the Keras model.
        steps: coefficients of the sampler.
        prediction: prediction target of the model.
        guidance: guidance scale.
        no_label: the null label.
        batch_size: images per batch.
        seed: of the noise.
    """

    def __init__(self, model, steps, prediction, guidance, no_label, batch_size, seed):
        self.model = model
        self.table = np.stack(steps, axis=1).astype("float32")
        self.prediction = prediction
        self.guidance = guidance
        self.no_label = no_label
        self.shape = (batch_size, *model.output_shape[1:])
        self.seed = seed

    def load(self):
        """Takes the weights that the model has now."""
        raise NotImplementedError

    def advance(self, row, noisy, before, labels, fresh):
        """One step: the images with less noise, and those predicted.

        Args:
            row: coefficients of the step.
            noisy: the images so far, an array at first and then what the last step gave, as is `before`.
            before: those predicted one step before.
            labels: (batch,).
            fresh: new noise; None for a sampler that adds none.
        """
        raise NotImplementedError

    def __call__(self, labels):
        """Images in uint8, one for each label."""
        self.load()
        starts = range(0, len(labels), len(self.take(labels)))
        images = [deque(self.stages(labels[start:], number), maxlen=1).pop() for number, start in enumerate(starts)]
        return shown_image(np.concatenate([np.asarray(image) for image in images])[: len(labels)])

    def chain(self, labels, stages):
        """The first images on their way from noise: (stages, examples, height, width, channels) in uint8."""
        self.load()
        stops = np.linspace(0, len(self.table), stages).round()
        found = [np.asarray(image) for done, image in enumerate(self.stages(labels, 0)) if done in stops]
        return shown_image(np.stack(found)[:, : len(labels)])

    def take(self, labels):
        """The labels of a batch, repeated where there are too few."""
        return np.resize(labels[: self.shape[0]], self.shape[0]).astype("int32")

    def stages(self, labels, number):
        """The images of batch `number` before the first step and after each."""
        rng = random_stream(self.seed, "noise", number)
        noisy = rng.standard_normal(self.shape, np.float32)
        labels = self.take(labels) if self.guidance else np.full(self.shape[0], self.no_label, "int32")
        before, random = np.zeros_like(noisy), self.table[:, -1].any()
        yield noisy
        for row in self.table:
            fresh = rng.standard_normal(self.shape, np.float32) if random else None
            noisy, before = self.advance(row, noisy, before, labels, fresh)
            yield noisy
