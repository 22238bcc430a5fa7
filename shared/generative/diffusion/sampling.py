"""Sampling from a diffusion model."""

import copy
import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops
from tqdm import tqdm

from shared.backends.compiling import compiled_loop
from shared.data.randomness import random_stream
from shared.generative.diffusion.samplers import SamplerSteps
from shared.generative.diffusion.schedule import Prediction, Rates, predicted_image
from shared.generative.pixels import shown_image

STEPS_PER_CALL = 50
"""Sampling steps in one compiled call, between two updates of the progress bar; bounds the noise held in memory."""


def guided(model: keras.Model, guidance: Any, no_label: int) -> Callable:
    """Classifier-free guidance of a model (Ho and Salimans 2022, arXiv:2207.12598, with w = guidance − 1).

    Args:
        model: see `ImageSampler`.
        guidance: guidance scale, also as a tensor: 0 ignores the labels, above 1 extrapolates. None: 1, without
            guidance, in half the time.
        no_label: the null label.

    Returns:
        A function of noisy images, times and labels.
    """

    def output(image: Any, time: Any, label: Any) -> Any:
        if guidance is None:
            return model({"image": image, "time": time, "label": label}, training=False)
        twice = {"image": ops.concatenate([image, image]), "time": ops.concatenate([time, time])}
        nothing = ops.full_like(label, no_label)
        outputs = model(twice | {"label": ops.concatenate([label, nothing])}, training=False)
        with_label, without_label = ops.split(outputs, 2)
        return without_label + guidance * (with_label - without_label)

    return output


class ImageSampler:
    """Samples images from a diffusion model.

    The loop over the steps is compiled once, with the table of coefficients, the guidance scale and the first and last
    step as arguments; see `compiled_loop`. All noise is drawn by NumPy, so that every backend makes the same images up
    to rounding.

    Args:
        model: from a dictionary of "image" (batch, height, width, channels), -1 to 1, "time" (batch,) and "label"
            (batch,) to predictions of the images' shape.
        steps: coefficients of the sampler, see `sampler_steps`.
        prediction: prediction target of the model.
        guidance: guidance scale at the steps that have guidance, see `guided`; 0 and 1 take half the time of others.
        no_label: the null label.
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
        self.no_label = no_label
        self.image_shape = model.output_shape[1:]

        def step(index, images, table, first, labels, fresh, guidance):
            noisy, before = images
            row = ops.unstack(ops.take(table, index, axis=0))
            time, signal, noise, is_guided, noisy_weight, image_weight, before_weight, fresh_weight = row
            scale = None if guidance is None else 1 + is_guided * (guidance - 1)
            predicted = guided(model, scale, no_label)(noisy, ops.broadcast_to(time, noisy.shape[:1]), labels)
            image = ops.clip(predicted_image(prediction, noisy, predicted, Rates(signal, noise)), -1, 1)
            after = noisy_weight * noisy + image_weight * image + before_weight * before
            return after if fresh is None else after + fresh_weight * ops.take(fresh, index - first, axis=0), image

        self.program = compiled_loop(step, [model])
        self.set_options(steps, guidance, batch_size, seed)

    def set_options(self, steps: SamplerSteps, guidance: float, batch_size: int, seed: int) -> None:
        """Sets what can be changed later."""
        self.shape = (batch_size, *self.image_shape)
        self.steps = len(steps.time)
        rows = 2 ** math.ceil(math.log2(self.steps))  # so that few numbers of steps are compiled
        self.table = np.pad(np.stack(steps, axis=1).astype("float32"), [(0, rows - self.steps), (0, 0)])
        self.random = bool(steps.fresh.any())
        self.guidance = guidance
        self.seed = seed

    def with_options(self, steps: SamplerSteps, guidance: float, batch_size: int, seed: int) -> "ImageSampler":
        """Another sampler with the same compiled program."""
        other = copy.copy(self)
        other.set_options(steps, guidance, batch_size, seed)
        return other

    def __call__(self, labels: np.ndarray) -> np.ndarray:
        """Images (examples, height, width, channels) in uint8, one for each label, whatever the other labels are."""
        batches = range(0, len(labels), self.shape[0])
        with tqdm(total=len(batches) * self.steps, desc="sampling", unit="step", disable=None) as bar:
            images = [deque(self.stages(labels[i:], n, [], bar), maxlen=1).pop() for n, i in enumerate(batches)]
        return np.concatenate(images)[: len(labels)]

    def chain(self, labels: np.ndarray, stages: int) -> np.ndarray:
        """Denoising chain of the first images of `__call__`: (stages, examples, height, width, channels), uint8.

        Args:
            labels: (examples,), at most a batch.
            stages: number of stages, from noise to image; fewer if there are fewer steps.
        """
        return np.stack(list(self.stages(labels, 0, self.stops(stages))))[:, : len(labels)]

    def stops(self, stages: int) -> list[int]:
        """Numbers of steps after each of so many stages, from noise to image; fewer if there are fewer steps."""
        return np.unique(np.linspace(0, self.steps, stages).round().astype(int)).tolist()

    def stages(
        self, labels: np.ndarray, number: int, stops: list[int], bar: tqdm | None = None
    ) -> Iterator[np.ndarray]:
        """Images of batch `number` after each number of steps in `stops`, and at the end."""
        rng = random_stream(self.seed, "noise", number)
        noisy = rng.standard_normal(self.shape, np.float32)
        before = np.zeros_like(noisy)
        labels = np.resize(labels[: self.shape[0]], self.shape[0]).astype("int32")
        labels = labels if self.guidance else np.full_like(labels, self.no_label)
        guidance = None if self.guidance in (0, 1) else np.float32(self.guidance)
        if 0 in stops:
            yield shown_image(noisy)
        done = 0
        while done < self.steps:
            until = min([done + STEPS_PER_CALL, self.steps, *(stop for stop in stops if stop > done)])
            constants = self.table, np.int32(done), labels, self.fresh_noise(rng, until - done), guidance
            noisy, before = self.program(done, until, (noisy, before), *constants)
            pixels = shown_image(ops.convert_to_numpy(noisy))  # waits for the device, lest noise pile up in memory
            if bar is not None:
                bar.update(until - done)
            done = until
            if done in stops or done == self.steps:
                yield pixels

    def fresh_noise(self, rng: np.random.Generator, steps: int) -> np.ndarray | None:
        """New noise for these steps, in an array of constant shape; None for a sampler that adds none."""
        if not self.random:
            return None
        most = min(STEPS_PER_CALL, len(self.table))
        noise = np.zeros((most, *self.shape), np.float32)
        rng.standard_normal(dtype=np.float32, out=noise[:steps])
        return noise
