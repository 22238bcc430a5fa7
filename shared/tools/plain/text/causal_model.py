"""Generation by a decoder-only model with a key-value cache."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from shared.backends.compiling import compiled_inference
from shared.data.randomness import random_stream
from shared.text.causal_model import model_parts
from shared.text.pairs import padded
from shared.text.sampling import Sampling, penalized_logits, sample_tokens
from shared.text.subwords import END, PAD


class CachedWriter:
    """Generates token by token with the keys and values of the earlier ones kept.

    When the window is full, its second half is read again as the beginning of the next.
    """

    def __init__(self, model: keras.Model, window: int, method: Sampling):
        self.embed, self.decoder, self.logits = model_parts(model)
        self.window, self.method = window, method
        self.read = compiled_inference(lambda ids: self.decoder.read(self.embed(ids))[1], [model])
        self.advance = compiled_inference(self.next_tokens, [model])

    def next_tokens(self, tokens: Any, index: Any, caches: list, text: Any, uniform: Any) -> tuple[Any, list]:
        x, caches = self.decoder.step(self.embed(tokens[:, None], index), caches, index)
        logits, method = self.logits(x)[:, 0], self.method
        vocabulary = ops.arange(logits.shape[-1])
        seen = ops.any(text[:, :, None] == vocabulary, axis=1)
        logits = penalized_logits(logits, seen, method.repetition_penalty)
        logits = ops.where(vocabulary < (PAD + 1 if method.end is None else END), -1e30, logits)
        return sample_tokens(logits, uniform, method.temperature, method.top_k, method.top_p, method.min_p), caches

    def __call__(self, prompts: list[list[int]], length: int, seed: int) -> Iterator[np.ndarray]:
        rng, start, caches = random_stream(seed, "tokens"), 0, None
        text = padded(prompts, max(map(len, prompts)) + length)
        for known in range(min(map(len, prompts)), text.shape[1]):
            if caches is None or known - start == self.window:
                start = known - self.window // 2 if known >= self.window else 0
                caches = self.read(padded(text[:, start : start + self.window].tolist(), self.window))
            window = padded(text[:, start:known].tolist(), self.window)
            index, uniform = np.int32(known - start - 1), rng.random(len(text), np.float32)
            drawn, caches = self.advance(text[:, known - 1], index, caches, window, uniform)
            ended = (text == self.method.end).any(axis=1)
            drawn = np.where(text[:, known] == PAD, ops.convert_to_numpy(drawn), text[:, known])
            text[:, known] = np.where(ended, PAD, drawn)
            yield text[:, known]
            if (text == self.method.end).any(axis=1).all():
                break
