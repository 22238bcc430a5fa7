"""Sampling from a diffusion model."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops
from tqdm import tqdm

from shared.backends.compiling import compiled_inference
from shared.data.randomness import random_stream
from shared.generative.diffusion.samplers import SamplerSteps
from shared.generative.diffusion.schedule import Prediction, Rates, predicted_image
from shared.generative.pixels import shown_image

STEPS_PER_CALL = 50
"""Sampling steps in one compiled call, between two updates of the progress bar; bounds the noise held in memory."""


def guided(model: keras.Model, guidance: float, no_label: int) -> Callable:
    """Classifier-free guidance of a model (Ho and Salimans 2022, arXiv:2207.12598, with w = guidance − 1).

    Args:
        model: see `ImageSampler`.
        guidance: guidance scale: 0 ignores the labels, 1 is without guidance, above 1 extrapolates.
        no_label: the null label.

    Returns:
        A function of noisy images, times and labels. A guidance other than 0 and 1 takes twice the time.
    """

    def output(image: Any, time: Any, label: Any) -> Any:
        if guidance == 1:
            return model({"image": image, "time": time, "label": label}, training=False)
        nothing = ops.full_like(label, no_label)
        if guidance == 0:
            return model({"image": image, "time": time, "label": nothing}, training=False)
        twice = {"image": ops.concatenate([image, image]), "time": ops.concatenate([time, time])}
        outputs = model(twice | {"label": ops.concatenate([label, nothing])}, training=False)
        with_label, without_label = ops.split(outputs, 2)
        return without_label + guidance * (with_label - without_label)

    return output


class ImageSampler:
    """Samples images from a diffusion model.

    On JAX and TensorFlow the loop over the steps is compiled once, with the table of coefficients and the first and
    last step as arguments; on PyTorch it is the same loop in Python. All noise is drawn by NumPy, so that every backend
    makes the same images up to rounding.

    Args:
        model: from a dictionary of "image" (batch, height, width, channels), -1 to 1, "time" (batch,) and "label"
            (batch,) to predictions of the images' shape.
        steps: coefficients of the sampler, see `sampler_steps`.
        prediction: prediction target of the model.
        guidance: see `guided`.
        no_label: see `guided`.
        batch_size: images per batch.
        seed: of the noise.
    """

    def __init__(
        self,
        model: keras.Model,
        steps: SamplerSteps,
        prediction: Prediction,
        guidance: float,
        no_label: int,
        batch_size: int,
        seed: int,
    ):
        self.shape = (batch_size, *model.output_shape[1:])
        self.table = np.stack(steps, axis=1).astype("float32")
        self.random = bool(steps.fresh.any())
        self.seed = seed
        output = guided(model, guidance, no_label)

        def advance(table, first, last, noisy, before, labels, fresh):
            def step(index, noisy, before):
                row = ops.unstack(ops.take(table, index, axis=0))
                time, signal, noise, noisy_weight, image_weight, before_weight, fresh_weight = row
                predicted = output(noisy, ops.broadcast_to(time, (batch_size,)), labels)
                image = ops.clip(predicted_image(prediction, noisy, predicted, Rates(signal, noise)), -1, 1)
                after = noisy_weight * noisy + image_weight * image + before_weight * before
                if fresh is not None:
                    after = after + fresh_weight * ops.take(fresh, index - first, axis=0)
                return index + 1, after, image

            return ops.while_loop(lambda index, *_: index < last, step, (first, noisy, before))[1:]

        self.program = compiled_inference(advance, [model])

    def __call__(self, labels: np.ndarray) -> np.ndarray:
        """Images (examples, height, width, channels) in uint8, one for each label, whatever the other labels are."""
        batches = range(0, len(labels), self.shape[0])
        with tqdm(total=len(batches) * len(self.table), desc="sampling", unit="step", disable=None) as bar:
            images = [self.stages(labels[start:], number, [], bar)[-1] for number, start in enumerate(batches)]
        return np.concatenate(images)[: len(labels)]

    def chain(self, labels: np.ndarray, stages: int) -> np.ndarray:
        """Denoising chain of the first images of `__call__`: (stages, examples, height, width, channels), uint8.

        Args:
            labels: (examples,), at most a batch.
            stages: number of stages, from noise to image; fewer if there are fewer steps.
        """
        stops = np.unique(np.linspace(0, len(self.table), stages).round().astype(int))
        return np.stack(self.stages(labels, 0, stops.tolist()))[:, : len(labels)]

    def stages(self, labels: np.ndarray, number: int, stops: list[int], bar: tqdm | None = None) -> list[np.ndarray]:
        """Images of batch `number` after each number of steps in `stops`, and at the end."""
        rng = random_stream(self.seed, "noise", number)
        noisy = rng.standard_normal(self.shape, np.float32)
        before = np.zeros_like(noisy)
        labels = np.resize(labels[: self.shape[0]], self.shape[0]).astype("int32")
        found = [shown_image(noisy)] if 0 in stops else []
        done = 0
        while done < len(self.table):
            until = min([done + STEPS_PER_CALL, len(self.table), *(stop for stop in stops if stop > done)])
            fresh = self.fresh_noise(rng, until - done)
            noisy, before = self.program(self.table, np.int32(done), np.int32(until), noisy, before, labels, fresh)
            pixels = shown_image(ops.convert_to_numpy(noisy))  # waits for the device, lest noise pile up in memory
            if bar is not None:
                bar.update(until - done)
            done = until
            if done in stops or done == len(self.table):
                found.append(pixels)
        return found

    def fresh_noise(self, rng: np.random.Generator, steps: int) -> np.ndarray | None:
        """New noise for these steps, in an array of constant shape; None for a sampler that adds none."""
        if not self.random:
            return None
        most = min(STEPS_PER_CALL, len(self.table))
        noise = np.zeros((most, *self.shape), np.float32)
        rng.standard_normal(dtype=np.float32, out=noise[:steps])
        return noise
