"""Translation with a trained Transformer."""

import time
from typing import Any

import keras
import numpy as np
from keras import ops

from shared.backends.compiling import compiled_inference
from shared.layers.positions import SinusoidalPositions
from shared.text.beam_search import beam_search, search_step
from shared.text.pairs import encoder_inputs, padded
from shared.text.subwords import PAD, START, Subwords

LONGEST = 240
"""Tokens of the longest sentence that is learned from, or translated; longer ones are left out, or cut."""


class Translator:
    """Translates with a trained model, by beam search.

    Args:
        model: with the layers embedding (`TokenEmbedding`), encoder (`TransformerEncoder`), decoder
            (`TransformerDecoder`) and, where places are added to the tokens, `SinusoidalPositions`.
        subwords: its vocabulary.
        beams: translations that are followed at once.
        length_penalty: how strongly longer translations are preferred.
    """

    def __init__(self, model: keras.Model, subwords: Subwords, beams: int, length_penalty: float):
        self.subwords = subwords
        self.beams = beams
        parts = ("embedding", "encoder", "decoder")
        self.embedding, self.encoder, self.decoder = (model.get_layer(name) for name in parts)
        self.places = [layer for layer in model.layers if isinstance(layer, SinusoidalPositions)]
        self.encode = compiled_inference(self.encoded, [model])
        self.advance = compiled_inference(search_step(self.step, length_penalty), [model])
        self.timed: dict[int, list[tuple[int, float]]] = {}
        """For each length of sources, what batches took: tokens of their translations, and seconds."""

    def embedded(self, ids: Any, start: Any = 0) -> Any:
        """Ids (batch, length) as vectors (batch, length, width); the first has the place `start`."""
        x = self.embedding(ids)
        for layer in self.places:
            x = layer(x, start=start)
        return x

    def encoded(self, source: Any) -> tuple[Any, Any]:
        """What the search needs of sources (batch, m): empty caches, and what each step looks at."""
        key_mask = ops.not_equal(source, PAD)
        memory = self.encoder(self.embedded(source), key_mask=key_mask)
        memory, key_mask = (ops.repeat(each, self.beams, axis=0) for each in (memory, key_mask))
        caches, fixed = self.decoder.start(memory, self.length(source.shape[1]))
        return caches, (fixed, key_mask)

    def step(self, tokens: Any, index: Any, caches: Any, context: Any) -> tuple[Any, Any]:
        """Logits (rows, vocabulary) of what follows tokens (rows,) at the place `index`, and the caches then."""
        x, caches = self.decoder.step(self.embedded(tokens[:, None], index), caches, *context, index)
        return self.embedding(x[:, 0], reverse=True), caches

    def length(self, source: int) -> int:
        """Tokens that the translation of so many may have."""
        return source * 3 // 2 + 8

    def __call__(self, sentences: list[str], batch_size: int = 1) -> list[str]:
        """The best translation of each; they are taken in order of length, so that few shapes are compiled."""
        sources = [self.subwords.encode(sentence)[: LONGEST - 1] for sentence in sentences]
        order = sorted((index for index in range(len(sources)) if sources[index]), key=lambda i: len(sources[i]))
        found = [""] * len(sources)
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            m = -(-(len(sources[chosen[-1]]) + 1) // 16) * 16
            missing = [chosen[0]] * (batch_size - len(chosen))
            inputs = encoder_inputs([sources[index] for index in [*chosen, *missing]], m)
            began = time.perf_counter()
            hypotheses = self.search(inputs)
            seconds = time.perf_counter() - began
            for index, ids in zip(chosen, hypotheses, strict=False):
                found[index] = self.subwords.decode(ids)
            self.timed.setdefault(m, []).append((sum(len(ids) + 1 for ids in hypotheses[: len(chosen)]), seconds))
        return found

    def search(self, source: np.ndarray) -> list[list[int]]:
        """The best translation, ids, of each of the sources (batch, m)."""
        batch, m = source.shape
        return beam_search(self.advance, *self.encode(source), batch, self.beams, self.length(m)).best()

    def tokens_per_second(self) -> float | None:
        """Tokens of translations found a second, the first batch of each length, which compiles, left out."""
        counted = [batch for batches in self.timed.values() for batch in batches[1:]]
        return round(sum(n for n, _ in counted) / sum(s for _, s in counted), 1) if counted else None

    def attention(self, source: str, target: str) -> tuple[np.ndarray, list[str], list[str]]:
        """How much each token of a target looks at each of its source (n, m), mean of the heads, and the tokens."""
        ids = [self.subwords.encode(each) for each in (source, target)]
        inputs, outputs = encoder_inputs(ids[:1], len(ids[0]) + 1), padded([[START, *ids[1]]], len(ids[1]) + 1)
        memory = self.encoder(self.embedded(inputs))
        weights = self.decoder.cross_weights(self.embedded(outputs), memory)
        names = [[*self.subwords.pieces(each), "(end)"] for each in ids]
        return ops.convert_to_numpy(weights)[0].mean(axis=0), *names
