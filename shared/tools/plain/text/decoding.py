"""Decoding."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from shared.backends.compiling import compiled_inference
from shared.data.randomness import random_stream
from shared.text.decoding import decoding_step, generate
from shared.text.pairs import encoder_inputs, padded
from shared.text.subwords import END, PAD, START


class SequenceWriter:
    """Generation of targets for sources with a trained encoder–decoder."""

    least = 0
    """Minimum tokens of a target."""

    def __init__(
        self, encode: Callable, step: Callable, models: Sequence[keras.layers.Layer], method: Any, seed: int = 0
    ):
        def encode_for_each_beam(sources):
            state, context = encode(sources)
            return keras.tree.map_structure(lambda x: ops.repeat(x, method.beams, axis=0), state), context

        self.method = method
        self.rng = random_stream(seed, "tokens")
        self.encode = compiled_inference(encode_for_each_beam, models)
        self.advance = compiled_inference(decoding_step(step, method, self.least), models)

    def write(self, sources: list[list[int]], source_length: int, target_length: int, rows: int) -> list[list[int]]:
        """The targets of at most `rows` sources, without START and END; compiled once for each shape."""
        filled = encoder_inputs(sources + [sources[0]] * (rows - len(sources)), source_length)
        start = self.method.start(padded([[START]] * rows, 1 + target_length))
        (final,) = deque(generate(self.advance, start, *self.encode(filled), self.rng), maxlen=1)
        found = ops.convert_to_numpy(final.best)[: len(sources)].tolist()
        return [[token for token in row if token not in (START, END, PAD)] for row in found]
