"""Translation with a trained Transformer."""

from typing import Any

import keras
import numpy as np
from keras import ops

from shared.layers.positions import SinusoidalPositions
from shared.text.beam_search import likeliest_sequence
from shared.text.decoding import SequenceWriter
from shared.text.pairs import encoder_inputs, padded
from shared.text.subwords import PAD, START, Subwords

LONGEST = 240
"""Tokens of the longest sentence that is learned from, or translated; longer ones are left out, or cut."""


class Translator(SequenceWriter):
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
        parts = ("embedding", "encoder", "decoder")
        self.embedding, self.encoder, self.decoder = (model.get_layer(name) for name in parts)
        self.places = [layer for layer in model.layers if isinstance(layer, SinusoidalPositions)]
        super().__init__(self.encoded, self.step, [model], likeliest_sequence(beams, length_penalty))

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
            written = self.write([sources[index] for index in chosen], m, self.length(m), batch_size)
            for index, ids in zip(chosen, written, strict=True):
                found[index] = self.subwords.decode(ids)
        return found

    def attention(self, source: str, target: str) -> tuple[np.ndarray, list[str], list[str]]:
        """How much each token of a target looks at each of its source (n, m), mean of the heads, and the tokens."""
        ids = [self.subwords.encode(each) for each in (source, target)]
        inputs, outputs = encoder_inputs(ids[:1], len(ids[0]) + 1), padded([[START, *ids[1]]], len(ids[1]) + 1)
        memory = self.encoder(self.embedded(inputs))
        weights = self.decoder.cross_weights(self.embedded(outputs), memory)
        names = [[*self.subwords.pieces(each), "(end)"] for each in ids]
        return ops.convert_to_numpy(weights)[0].mean(axis=0), *names
