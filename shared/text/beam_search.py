"""Beam search: the likeliest sequences of a model that predicts them token by token."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from shared.text.subwords import END, PAD

IMPOSSIBLE = -1e9
"""Log-probability of a forbidden token; finite, so that sums and differences stay finite."""


class Beams(NamedTuple):
    """State of a beam search: live and ended sequences, the best first."""

    ids: Any
    """(batch, beams, length) of the live sequences: START, tokens, then PAD."""
    scores: Any
    """(batch, beams), log-probabilities of the live sequences."""
    ended_ids: Any
    """(batch, beams, length): START, tokens, END, then PAD."""
    ended_scores: Any
    """(batch, beams), after the length penalty; `IMPOSSIBLE` where there is none yet."""
    last: Any
    """(batch, beams), the last tokens of `ids`."""

    @property
    def best(self) -> Any:
        """(batch, length), the best ended sequences."""
        return self.ended_ids[:, 0]


def length_penalty(length: Any, strength: float) -> Any:
    """Divisor of log-probabilities: ((5 + length) / 6)^strength (Wu et al. 2016, arXiv:1609.08144, eq. 14)."""
    return ((5 + ops.cast(length, "float32")) / 6) ** strength


def repeating_tokens(ids: Any, index: Any, size: int, vocabulary: int) -> Any:
    """Next tokens that would repeat an n-gram of `size` tokens.

    Args:
        ids: (rows, length), tokens so far, then PAD.
        index: number of tokens so far.
        size: tokens of an n-gram, at least 1.
        vocabulary: number of tokens.

    Returns:
        (rows, vocabulary), bool.
    """
    rows, length = ids.shape
    starts = ops.arange(length)
    seen = starts + size <= index  # n-grams that end before the next token
    for offset in range(size - 1):
        here = ops.take(ids, ops.minimum(starts + offset, length - 1), axis=1)
        last = ops.take(ids, ops.reshape(ops.maximum(index - size + 1 + offset, 0), (1,)), axis=1)
        seen = ops.logical_and(seen, here == last)
    seen = ops.broadcast_to(seen, (rows, length))
    after = ops.take(ids, ops.minimum(starts + size - 1, length - 1), axis=1)
    after = ops.where(seen, after, PAD)
    indices = ops.stack([ops.repeat(ops.arange(rows), length), ops.reshape(after, (-1,))], axis=1)
    marks = ops.scatter_update(ops.zeros((rows, vocabulary)), indices, ops.ones((rows * length,)))
    return marks > 0


def largest_entries(values: Any, count: int) -> tuple[Any, Any]:
    """The largest entries of each row and their indices, (rows, count) each, largest first.

    XLA sorts all of the values for `top_k`, which on a CPU takes longer than a step of a model. So first the groups
    with the largest maxima are found, then the largest entries in these.

    Args:
        values: (rows, entries).
        count: at most the number of entries.
    """
    rows, entries = values.shape
    size = max(1, math.isqrt(entries // count))
    groups = -(-entries // size)
    values = ops.pad(values, ((0, 0), (0, groups * size - entries)), constant_values=-np.inf)
    values = ops.reshape(values, (rows, groups, size))
    _, chosen = ops.top_k(ops.max(values, axis=-1), min(count, groups))
    chosen = ops.cast(chosen, "int32")
    values = ops.reshape(ops.take_along_axis(values, chosen[..., None], axis=1), (rows, -1))
    values, indices = ops.top_k(values, count)
    indices = ops.cast(indices, "int32")
    return values, ops.take_along_axis(chosen, indices // size, axis=1) * size + indices % size


def best_of(scores: Any, ids: Any, count: int) -> tuple[Any, Any, Any]:
    """The best `count` candidates of each item: scores (batch, count), ids (batch, count, length), indices."""
    scores, indices = ops.top_k(scores, count)
    return scores, ops.take_along_axis(ids, ops.cast(indices[..., None], "int32"), axis=1), indices


@dataclass(frozen=True)
class BeamSearch:
    """Beam search for the likeliest sequence. See `shared.text.decoding`."""

    beams: int = 1
    """Beam size."""
    length_penalty: float = 0.0
    """Length penalty; higher prefers longer sequences; 0: none."""
    no_repeat: int = 0
    """No-repeat n-gram size; 0: off."""
    end = END

    def start(self, ids: np.ndarray) -> Beams:
        """Initial state, from ids (batch, length): START, then PAD."""
        ids = np.repeat(ids[:, None], self.beams, axis=1)
        none = np.full(ids.shape[:2], IMPOSSIBLE, np.float32)
        first = none.copy()
        first[:, 0] = 0  # all are alike: expand one
        return Beams(ids, first, ids, none, ids[:, :, 0])

    def extend(
        self, beams: Beams, logits: Any, penalties: Any, state: Any, index: Any, uniform: Any
    ) -> tuple[Beams, Any, Any]:
        """Expands every sequence by its likeliest tokens and keeps the best.

        There are twice as many candidates as beams, so that enough stay live even if all the others end. A sequence
        ends where END is among the best candidates, as many as there are beams. An item with as many ended sequences as
        beams is finished. Sequences that reach the last position end there; where fewer than `beams` are possible, the
        others have scores below -1e8. See `shared.text.decoding.decoding_step` for the arguments.
        """
        batch, count, length = beams.ids.shape
        vocabulary = logits.shape[-1]
        scores = ops.log_softmax(logits, axis=-1)
        penalties = penalties + ops.where((index == length - 2) & (ops.arange(vocabulary) != END), IMPOSSIBLE, 0.0)
        scores = ops.reshape(scores + penalties, (batch, count, vocabulary))
        scores = ops.reshape(scores + beams.scores[..., None], (batch, count * vocabulary))

        scores, indices = largest_entries(scores, 2 * count)
        origins, chosen = indices // vocabulary, indices % vocabulary
        ids = ops.take_along_axis(beams.ids, origins[..., None], axis=1)
        ids = ops.where(ops.arange(length) == index + 1, chosen[..., None], ids)
        ends = chosen == END

        done = ops.all(beams.ended_scores > IMPOSSIBLE / 2, axis=1, keepdims=True)
        counts = ends & ~done & (ops.arange(indices.shape[1]) < count) & (scores > IMPOSSIBLE / 2)
        ended_scores = ops.where(counts, scores / length_penalty(index + 1, self.length_penalty), IMPOSSIBLE)
        ended_scores, ended_ids, _ = best_of(
            ops.concatenate([beams.ended_scores, ended_scores], axis=1),
            ops.concatenate([beams.ended_ids, ids], axis=1),
            count,
        )
        scores, ids, kept = best_of(ops.where(ends, IMPOSSIBLE, scores), ids, count)
        kept = ops.cast(kept, "int32")
        rows = ops.reshape(ops.take_along_axis(origins, kept, axis=1) + ops.arange(batch)[:, None] * count, (-1,))
        state = keras.tree.map_structure(lambda x: ops.take(x, rows, axis=0), state)
        beams = Beams(ids, scores, ended_ids, ended_scores, ops.take_along_axis(chosen, kept, axis=1))
        return beams, state, ops.all(ended_scores > IMPOSSIBLE / 2)


class Sequences(NamedTuple):
    """State of a greedy search: one sequence for each item."""

    ids: Any
    """(batch, length): START, tokens, END if it has ended, then PAD."""
    last: Any
    """(batch,), the last tokens."""
    ended: Any
    """(batch,), bool: whether each has ended."""

    @property
    def best(self) -> Any:
        """(batch, length), the sequences."""
        return self.ids


@dataclass(frozen=True)
class GreedySearch:
    """Greedy search: the likeliest token again and again, as beam search with one beam, but quicker.

    See `shared.text.decoding`.
    """

    no_repeat: int = 0
    """No-repeat n-gram size; 0: off."""
    end = END
    beams = 1

    def start(self, ids: np.ndarray) -> Sequences:
        """Initial state, from ids (batch, length): START, then PAD."""
        return Sequences(ids, ids[:, 0], np.zeros(len(ids), bool))

    def extend(
        self, sequences: Sequences, logits: Any, penalties: Any, state: Any, index: Any, uniform: Any
    ) -> tuple[Sequences, Any, Any]:
        """Appends the likeliest token to every sequence; sequences that reach the last position end there."""
        positions = ops.arange(sequences.ids.shape[1])
        tokens = ops.cast(ops.argmax(logits + penalties, axis=-1), "int32")
        tokens = ops.where(index == positions.shape[0] - 2, END, tokens)
        tokens = ops.where(sequences.ended, PAD, tokens)
        ended = sequences.ended | (tokens == END)
        ids = ops.where(positions == index + 1, tokens[:, None], sequences.ids)
        return Sequences(ids, tokens, ended), state, ops.all(ended)


def likeliest_sequence(beams: int, length_penalty: float = 0.0, no_repeat: int = 0) -> BeamSearch | GreedySearch:
    """Search with so many beams; greedy with one."""
    return BeamSearch(beams, length_penalty, no_repeat) if beams > 1 else GreedySearch(no_repeat)
