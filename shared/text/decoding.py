"""Sequences that an encoder–decoder writes: greedily, by beam search, or by drawing lots."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from shared.backends.compiling import compiled_inference
from shared.data.randomness import random_stream
from shared.text.beam_search import IMPOSSIBLE, beam_search, repeating_tokens, search_step
from shared.text.pairs import encoder_inputs
from shared.text.sampling import sample_tokens
from shared.text.subwords import END, PAD, START, UNKNOWN
from shared.training.options import Options


@dataclass(kw_only=True)
class WritingOptions(Options):
    """Options of recipes that write: the likeliest sequence that a search finds, or a random one."""

    free_on_resume: ClassVar[tuple[str, ...]] = (
        "beams", "length_penalty", "no_repeat", "temperature", "top_k", "top_p",
    )  # fmt: skip

    beams: int = 4
    """Sequences that the search follows at once; 1: greedy."""
    length_penalty: float = 1.0
    """The higher, the longer what the search prefers; 0: the likeliest as a whole."""
    no_repeat: int = 3
    """No run of so many tokens may occur twice in what is written; 0: any may."""
    temperature: float = 0.0
    """Above 0, draw each token in place of the search; the higher, the wilder."""
    top_k: int = 0
    """Draw among only so many of the likeliest tokens; 0: all."""
    top_p: float = 0.9
    """Draw among only as many of the likeliest tokens as have this probability together."""

    def __post_init__(self):
        super().__post_init__()
        self.require("beams", self.beams >= 1, "must be at least 1")
        for name in ("length_penalty", "no_repeat", "temperature", "top_k"):
            self.require(name, getattr(self, name) >= 0, "must be at least 0")
        self.require("top_p", 0 < self.top_p <= 1, "must be above 0 and at most 1")


def sampling_step(step: Callable, options: WritingOptions) -> Callable:
    """One token more for each of several sequences, as one function from tensors to tensors, to be compiled.

    It takes the tokens so far (rows, length), their number, the state, the context and uniform random numbers (rows,);
    it gives the tokens, the state, and whether all sequences have ended.

    Args:
        step: see `shared.text.beam_search.beam_search`.
        options: how tokens are drawn.
    """

    def advance(ids, index, state, context, uniform):
        last = ops.take(ids, ops.reshape(ops.maximum(index - 1, 0), (1,)), axis=1)[:, 0]
        logits, state = step(ops.where(index == 0, START, last), index, state, context)
        tokens = ops.arange(logits.shape[-1])
        banned = (tokens == PAD) | (tokens == UNKNOWN) | (tokens == START)
        if options.no_repeat:
            repeating = repeating_tokens(ids, index, options.no_repeat, logits.shape[-1])
            banned = banned | (repeating & (tokens != END))
        logits = ops.where(banned, IMPOSSIBLE, ops.cast(logits, "float32"))
        drawn = sample_tokens(
            logits, uniform, temperature=options.temperature, top_k=options.top_k, top_p=options.top_p
        )
        drawn = ops.where(ops.any(ids == END, axis=1), PAD, ops.cast(drawn, "int32"))
        ids = ops.where(ops.arange(ids.shape[1]) == index, drawn[:, None], ids)
        return ids, state, ops.all(ops.any(ids == END, axis=1))

    return advance


def never_empty(step: Callable) -> Callable:
    """The same step, but no sequence ends before its first token."""

    def wordy_step(tokens, index, state, context):
        logits, state = step(tokens, index, state, context)
        ends = (index == 0) & (ops.arange(logits.shape[-1]) == END)
        return ops.where(ends, IMPOSSIBLE, ops.cast(logits, "float32")), state

    return wordy_step


class SequenceWriter:
    """Writes targets, at least a token each, for sources with a trained encoder–decoder; compiled for one shape.

    Args:
        encode: from sources (rows, source_length), ids, to the state and the context that `step` takes.
        step: see `shared.text.beam_search.beam_search`.
        models: all models and layers that the two use.
        options: how to write; the seed is of what is drawn.
        source_length: tokens of a source at most, END included.
        target_length: tokens of a target at most, END included.
        rows: sources at once.
    """

    def __init__(
        self,
        encode: Callable,
        step: Callable,
        models: Sequence[keras.layers.Layer],
        options: WritingOptions,
        source_length: int,
        target_length: int,
        rows: int = 32,
    ):
        self.source_length = source_length
        self.target_length = target_length
        self.rows = rows
        self.compiled = False
        self.tokens = 0
        self.seconds = 0.0
        self.rng = random_stream(options.seed, "tokens")
        self.sampling = options.temperature > 0
        self.beams = beams = 1 if self.sampling else options.beams

        def encode_for_each_beam(sources):
            return keras.tree.map_structure(lambda x: ops.repeat(x, beams, axis=0), encode(sources))

        step = never_empty(step)
        if self.sampling:
            advance = sampling_step(step, options)
        else:
            advance = search_step(step, options.length_penalty, options.no_repeat)
        self.encode = compiled_inference(encode_for_each_beam, models)
        self.advance = compiled_inference(advance, models)

    def __call__(self, sources: list[list[int]]) -> list[list[int]]:
        """The targets of any number of sources, all without START and END."""
        targets = []
        for start in range(0, len(sources), self.rows):
            part = sources[start : start + self.rows]
            filled = part + [part[0]] * (self.rows - len(part))
            began = time.perf_counter()
            state, context = self.encode(encoder_inputs(filled, self.source_length))
            written = (self.sample if self.sampling else self.search)(state, context)
            if self.compiled:
                self.seconds += time.perf_counter() - began
                self.tokens += sum(len(target) + 1 for target in written)
            self.compiled = True
            targets += written[: len(part)]
        return targets

    def tokens_per_second(self) -> float | None:
        """Tokens written a second, END included, without the first batch, in which all is compiled; None if none."""
        return round(self.tokens / self.seconds, 1) if self.seconds else None

    def search(self, state: Any, context: Any) -> list[list[int]]:
        """The likeliest targets that beam search finds."""
        return beam_search(
            self.advance, state, context, batch=self.rows, beams=self.beams, length=self.target_length
        ).best()

    def sample(self, state: Any, context: Any) -> list[list[int]]:
        """Random targets."""
        ids: Any = np.full((self.rows, self.target_length), PAD, np.int32)
        for index in range(self.target_length):
            uniform = self.rng.random(self.rows, np.float32)
            ids, state, done = self.advance(ids, np.int32(index), state, context, uniform)
            if bool(done):
                break
        return [[int(token) for token in row if token not in (END, PAD)] for row in ops.convert_to_numpy(ids)]
