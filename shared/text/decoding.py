"""Decoding: text generated token by token, by one loop for every model and every method.

A model is a step function, from the last tokens and a state to the logits of the next ones and the new state; a
method, `GreedySearch`, `BeamSearch` or `Sampling`, chooses among the logits. `generate` is the loop.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from shared.backends.compiling import compiled_inference
from shared.data.randomness import random_stream
from shared.text.beam_search import IMPOSSIBLE, BeamSearch, GreedySearch, likeliest_sequence, without_repetition
from shared.text.pairs import encoder_inputs, padded
from shared.text.sampling import Sampling
from shared.text.subwords import END, PAD, START
from shared.training.options import Options
from shared.training.ranges import Count, NonNegative, Whole, ranged

Method = GreedySearch | BeamSearch | Sampling


@dataclass(kw_only=True)
class WritingOptions(Options):
    """Options of recipes that generate text: by greedy or beam search, or by sampling."""

    free_on_resume: ClassVar[tuple[str, ...]] = (
        "beams", "length_penalty", "no_repeat", "temperature", "top_k", "top_p",
    )  # fmt: skip

    beams: Count = 4
    """Beam size; 1 is greedy."""
    length_penalty: NonNegative = 1.0
    """Length penalty of beam search; higher prefers longer sequences; 0: none."""
    no_repeat: Whole = 3
    """No-repeat n-gram size: no run of n tokens occurs twice; 0: off."""
    temperature: NonNegative = 0.0
    """Sampling temperature; 0: beam search."""
    top_k: Whole = 0
    """Top-k sampling: among the k likeliest tokens; 0: all."""
    top_p: ranged(float, above=0, most=1) = 0.9
    """Top-p (nucleus) sampling: among the likeliest tokens that together have this probability."""

    def method(self) -> Method:
        """The decoding method."""
        if self.temperature > 0:
            return Sampling(self.temperature, self.top_k, self.top_p, self.no_repeat)
        return likeliest_sequence(self.beams, self.length_penalty, self.no_repeat)


def decoding_step(step: Callable, method: Method, least: int = 0) -> Callable:
    """A decoding step: appends a token to each sequence; one function from tensors to tensors, to be compiled once.

    Args:
        step: the model. `step(tokens, index, state, context)` takes the last token (rows,) of each sequence, its
            position from 0, the state and the context, and returns the logits (rows, vocabulary) of the next token, and
            the new state.
            The state is a nested structure of tensors with a leading axis of rows: the items of a batch, `method.beams`
            of each together. The context is constant, such as the outputs of an encoder, (batch, …): each item of it is
            for as many rows as there are beams.
        method: how tokens are chosen from the logits. Its `extend` also gets a function from scores (rows, vocabulary)
            to the same with `IMPOSSIBLE` for tokens that must not come next, and for those that it names itself.
        least: minimum tokens of a sequence, START and END left out.

    Returns:
        A function from the method's state, as of `method.start` or an earlier step, the position, the model's state,
        the context, and uniform random numbers (batch,) for methods that sample; to both states with the next token in
        them, and whether all sequences have ended.
    """

    def advance(sequences, index, state, context, uniform):
        logits, state = step(ops.reshape(sequences.last, (-1,)), index, state, context)
        logits = ops.cast(logits, "float32")
        tokens = ops.arange(logits.shape[1])
        never = tokens < (PAD + 1 if method.end is None else END)  # also UNKNOWN and START, where there are such
        if least:
            never = never | (tokens == END) & (index < least)

        def forbid(scores, also=False):
            # To add is quicker than to select, and of numbers of this size nothing but the size is left.
            scores = scores + ops.where(never | also, IMPOSSIBLE, 0.0)
            if not method.no_repeat:
                return scores
            ids = ops.reshape(sequences.ids, (scores.shape[0], -1))
            return without_repetition(scores, ids, index + 1, method.no_repeat)

        return method.extend(sequences, logits, forbid, state, index, uniform)

    return advance


def generate(
    advance: Callable, sequences: Any, state: Any, context: Any, rng: np.random.Generator, first: int = 0
) -> Iterator[Any]:
    """Generates sequences token by token, until all have ended or are full; yields the state after each token.

    Args:
        advance: `decoding_step(…)`, usually through `compiled_inference`.
        sequences: initial state of the method, from its `start`; yielded after each token.
        state: of the model, before the first token.
        context: constant inputs of the model, such as an encoder's outputs.
        rng: of sampling.
        first: position of the first token that the model has not read yet.
    """
    batch, *_, length = sequences.ids.shape
    for index in range(first, length - 1):
        uniform = rng.random(batch, np.float32)
        sequences, state, done = advance(sequences, np.int32(index), state, context, uniform)
        yield sequences
        if bool(done):
            break


class SequenceWriter:
    """Generation of targets for sources with a trained encoder–decoder.

    Args:
        encode: from sources (batch, source_length), ids, to the first state and the context of `step`.
        step: see `decoding_step`.
        models: all models and layers that the two use.
        method: how tokens are chosen.
        seed: of sampling.
    """

    least = 0
    """Minimum tokens of a target."""

    def __init__(
        self,
        encode: Callable,
        step: Callable,
        models: Sequence[keras.layers.Layer],
        method: Method,
        seed: int = 0,
    ):
        def encode_for_each_beam(sources):
            state, context = encode(sources)
            return keras.tree.map_structure(lambda x: ops.repeat(x, method.beams, axis=0), state), context

        self.method = method
        self.rng = random_stream(seed, "tokens")
        self.encode = compiled_inference(encode_for_each_beam, models)
        self.advance = compiled_inference(decoding_step(step, method, self.least), models)
        self.batches: Counter[tuple[int, ...]] = Counter()
        """Batches so far, by shape; the first two of each, which compile (PyTorch at the second), are not timed."""
        self.tokens, self.seconds = 0, 0.0
        """Tokens generated and seconds taken by the other batches."""

    def write(self, sources: list[list[int]], source_length: int, target_length: int, rows: int) -> list[list[int]]:
        """The targets of at most `rows` sources, without START and END; compiled once for each shape.

        Args:
            sources: ids, at least one.
            source_length: maximum tokens of a source, END included; longer ones are truncated.
            target_length: maximum tokens of a target, END included.
            rows: items of the compiled batch.
        """
        began = time.perf_counter()
        filled = sources + [sources[0]] * (rows - len(sources))
        targets = self.decode(encoder_inputs(filled, source_length), target_length)[: len(sources)]
        shape = source_length, target_length, rows
        if self.batches[shape] >= 2:
            self.tokens += sum(len(target) + 1 for target in targets)
            self.seconds += time.perf_counter() - began
        self.batches[shape] += 1
        return targets

    def decode(self, sources: np.ndarray, length: int) -> list[list[int]]:
        """The targets, of at most `length` tokens, of sources (batch, source_length), ids."""
        start = self.method.start(padded([[START]] * len(sources), 1 + length))
        (final,) = deque(generate(self.advance, start, *self.encode(sources), self.rng), maxlen=1)
        rows = ops.convert_to_numpy(final.best).tolist()
        return [[token for token in row if token not in (START, END, PAD)] for row in rows]

    def tokens_per_second(self) -> float | None:
        """Tokens generated per second, END included, without the first two batches of each shape; or None."""
        return round(self.tokens / self.seconds, 1) if self.seconds else None
