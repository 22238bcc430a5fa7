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
from shared.training.predictors import TOGETHER

LONGEST = 240
"""Maximum tokens of a sentence; longer ones are left out of training, and truncated in translation."""


class Translator(SequenceWriter):
    """Translation by beam search with a trained model.

    Args:
        model: with the layers embedding (`TokenEmbedding`), encoder (`TransformerEncoder`), decoder
            (`TransformerDecoder`) and, where positions are added to the tokens, `SinusoidalPositions`.
        subwords: its vocabulary.
        beams: beam size.
        length_penalty: see `BeamSearch`.
    """

    def __init__(self, model: keras.Model, subwords: Subwords, beams: int, length_penalty: float):
        self.subwords = subwords
        parts = ("embedding", "encoder", "decoder")
        self.embedding, self.encoder, self.decoder = (model.get_layer(name) for name in parts)
        self.positions = [layer for layer in model.layers if isinstance(layer, SinusoidalPositions)]
        super().__init__(self.encoded, self.step, [model], likeliest_sequence(beams, length_penalty))

    def embedded(self, ids: Any, start: Any = 0) -> Any:
        """Embeddings (batch, length, width) of ids (batch, length), the first at position `start`."""
        x = self.embedding(ids)
        for layer in self.positions:
            x = layer(x, start=start)
        return x

    def encoded(self, source: Any) -> tuple[Any, Any]:
        """Empty caches for sources (batch, m), and the context of each step: encoder keys and values, and mask."""
        key_mask = ops.not_equal(source, PAD)
        memory = self.encoder(self.embedded(source), key_mask=key_mask)
        caches, fixed = self.decoder.start(memory, self.length(source.shape[1]))
        return caches, (fixed, key_mask)

    def step(self, tokens: Any, index: Any, caches: Any, context: Any) -> tuple[Any, Any]:
        """Logits (rows, vocabulary) of the tokens after tokens (rows,) at position `index`, and the updated caches."""
        x, caches = self.decoder.step(self.embedded(tokens[:, None], index), caches, *context, index)
        return self.embedding(x[:, 0], reverse=True), caches

    def length(self, source: int) -> int:
        """Maximum tokens of the translation of so many."""
        return source * 3 // 2 + 8

    def __call__(self, sentences: list[str], batch_size: int = 1) -> list[str]:
        """The best translation of each sentence, translated in order of length, so that few shapes are compiled."""
        sources = [self.subwords.encode(sentence)[: LONGEST - 1] for sentence in sentences]
        order = sorted((index for index in range(len(sources)) if sources[index]), key=lambda i: len(sources[i]))
        found = [""] * len(sources)
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            m = self.padded_length(len(sources[chosen[-1]]))
            written = self.write([sources[index] for index in chosen], m, self.length(m), batch_size)
            for index, ids in zip(chosen, written, strict=True):
                found[index] = self.subwords.decode(ids)
        return found

    def several(self, sentences: list[str]) -> list[str]:
        """The translation of each sentence as by itself: those that are padded to the same length are one batch."""
        stripped = [sentence.strip() for sentence in sentences]
        lengths = [self.padded_length(len(self.subwords.encode(sentence))) for sentence in stripped]
        found = {}
        for length in set(lengths):
            chosen = [sentence for sentence, other in zip(stripped, lengths, strict=True) if other == length]
            found |= zip(chosen, self(chosen, TOGETHER if len(chosen) > 1 else 1), strict=True)
        return [found[sentence] for sentence in stripped]

    def padded_length(self, tokens: int) -> int:
        """Length that a source of so many tokens is padded to, so that few shapes are compiled."""
        return -(-(min(tokens, LONGEST - 1) + 1) // 16) * 16

    def attention_to(self, source: str, target: str) -> tuple[np.ndarray, list[str], list[str]]:
        """Cross-attention weights (n, m) of target over source tokens, averaged over the heads, and the tokens."""
        ids = [self.subwords.encode(each) for each in (source, target)]
        inputs, outputs = encoder_inputs(ids[:1], len(ids[0]) + 1), padded([[START, *ids[1]]], len(ids[1]) + 1)
        memory = self.encoder(self.embedded(inputs))
        weights = self.decoder.cross_weights(self.embedded(outputs), memory)
        names = [[*self.subwords.pieces(each), "(end)"] for each in ids]
        return ops.convert_to_numpy(weights)[0].mean(axis=0), *names
