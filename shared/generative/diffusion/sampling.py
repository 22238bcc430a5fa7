"""Images drawn from a denoising model."""

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

MOST_STEPS = 50
"""How many steps run between two reports of progress, and for how many of them new noise lies in memory."""


def guided(model: keras.Model, guidance: float, no_label: int) -> Callable:
    """The model's output with classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598; w = guidance − 1).

    Args:
        model: see `ImageSampler`.
        guidance: 0 for the output without labels, 1 for that with labels, above 1 to go beyond it.
        no_label: the label that stands for none.

    Returns:
        A function of noisy images, times and labels. Only a guidance other than 0 and 1 takes twice the time.
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
    """Draws images from noise.

    One program does it: on JAX and TensorFlow a compiled loop over the steps, which takes the table of steps and the
    first and last of them as arguments; on PyTorch the same loop in Python, since there each operation runs at once
    anyway. All noise is drawn by NumPy, so that every backend gives the same images up to rounding.

    Args:
        model: takes noisy images (batch, height, width, channels), times (batch,) and labels (batch,), as a dictionary
            with the keys "image", "time" and "label", and gives predictions of the shape of the images. Images are -1
            to 1.
        steps: the sampler, see `sampler_steps`.
        prediction: what the model predicts.
        guidance: see `guided`.
        no_label: see `guided`.
        batch_size: images at a time.
        seed: of all noise.
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
                time, signal, noise, of_noisy, of_image, of_before, of_fresh = row
                predicted = output(noisy, ops.broadcast_to(time, (batch_size,)), labels)
                image = ops.clip(predicted_image(prediction, noisy, predicted, Rates(signal, noise)), -1, 1)
                after = of_noisy * noisy + of_image * image + of_before * before
                if fresh is not None:
                    after = after + of_fresh * ops.take(fresh, index - first, axis=0)
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
        """How noise becomes the first images of `__call__`: (stages, examples, height, width, channels) in uint8.

        Args:
            labels: (examples,), at most a batch.
            stages: how many, from the noise to the images; fewer where there are fewer steps.
        """
        stops = np.unique(np.linspace(0, len(self.table), stages).round().astype(int))
        return np.stack(self.stages(labels, 0, stops.tolist()))[:, : len(labels)]

    def stages(self, labels: np.ndarray, number: int, stops: list[int], bar: tqdm | None = None) -> list[np.ndarray]:
        """Batch `number`: its images after each number of steps in `stops`, and at the end."""
        rng = random_stream(self.seed, "noise", number)
        noisy = rng.standard_normal(self.shape, np.float32)
        before = np.zeros_like(noisy)
        labels = np.resize(labels[: self.shape[0]], self.shape[0]).astype("int32")
        found = [shown_image(noisy)] if 0 in stops else []
        done = 0
        while done < len(self.table):
            until = min([done + MOST_STEPS, len(self.table), *(stop for stop in stops if stop > done)])
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
        """New noise for so many steps, always in an array of one size; None for a sampler that adds none."""
        if not self.random:
            return None
        most = min(MOST_STEPS, len(self.table))
        noise = np.zeros((most, *self.shape), np.float32)
        rng.standard_normal(dtype=np.float32, out=noise[:steps])
        return noise
