"""Beam search: the likeliest sequences of a model that predicts them token by token."""

import math
from collections.abc import Callable
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


def without_repetition(scores: Any, ids: Any, index: Any, size: int) -> Any:
    """Scores (rows, vocabulary) of next tokens, `IMPOSSIBLE` for those that would repeat an n-gram; never for END.

    Args:
        scores: of tokens; PAD is impossible already.
        ids: (rows, length), tokens so far, then PAD.
        index: number of tokens so far.
        size: tokens of an n-gram, at least 1.
    """
    rows, count = len(ids), max(ids.shape[1] - size + 1, 0)
    repeats = ops.arange(count) + size <= index  # n-grams that end before the next token
    if size > 1:
        last = ops.take(ids, ops.maximum(index - size + 1 + ops.arange(size - 1), 0), axis=1)
        for offset in range(size - 1):
            repeats = repeats & (ids[:, offset : offset + count] == last[:, offset : offset + 1])
    ends = ids[:, size - 1 :]
    tokens = ops.where(repeats & (ends != END), ends, PAD)
    indices = ops.stack([ops.repeat(ops.arange(rows), count), ops.reshape(tokens, (-1,))], axis=1)
    return ops.scatter_update(scores, indices, ops.full((rows * count,), IMPOSSIBLE))


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
    grouped = entries // size * size  # the others, fewer than a group, are candidates anyway
    others = ops.broadcast_to(ops.arange(grouped, entries), (rows, entries - grouped))
    groups = ops.reshape(values[:, :grouped], (rows, -1, size))
    _, chosen = ops.top_k(ops.max(groups, axis=-1), min(count, groups.shape[1]))
    chosen = ops.cast(chosen, "int32")[..., None]
    places = ops.concatenate([ops.reshape(chosen * size + ops.arange(size), (rows, -1)), others], axis=1)
    found = ops.reshape(ops.take_along_axis(groups, chosen, axis=1), (rows, -1))
    values, indices = ops.top_k(ops.concatenate([found, values[:, grouped:]], axis=1), count)
    return values, ops.take_along_axis(places, ops.cast(indices, "int32"), axis=1)


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
        self, beams: Beams, logits: Any, forbid: Callable, state: Any, index: Any, uniform: Any
    ) -> tuple[Beams, Any, Any]:
        """Expands every sequence by its likeliest tokens and keeps the best.

        There are twice as many candidates as beams, so that enough stay live even if all the others end. A sequence
        ends where END is among the best candidates, as many as there are beams. An item with as many ended sequences as
        beams is finished. Sequences that reach the last position end there; where fewer than `beams` are possible, the
        others have scores below -1e8. See `shared.text.decoding.decoding_step` for the arguments.
        """
        batch, count, length = beams.ids.shape
        vocabulary = logits.shape[-1]
        scores = forbid(ops.log_softmax(logits), also=(index == length - 2) & (ops.arange(vocabulary) != END))
        scores = ops.reshape(scores, (batch, count, vocabulary)) + beams.scores[..., None]
        scores, indices = largest_entries(ops.reshape(scores, (batch, count * vocabulary)), 2 * count)
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
        self, sequences: Sequences, logits: Any, forbid: Callable, state: Any, index: Any, uniform: Any
    ) -> tuple[Sequences, Any, Any]:
        """Appends the likeliest token to every sequence; sequences that reach the last position end there."""
        length, vocabulary = sequences.ids.shape[1], logits.shape[1]
        logits = forbid(logits, also=(index == length - 2) & (ops.arange(vocabulary) != END))
        tokens = ops.cast(ops.argmax(logits, axis=-1), "int32")
        tokens = ops.where(sequences.ended, PAD, tokens)
        ended = sequences.ended | (tokens == END)
        ids = ops.where(ops.arange(length) == index + 1, tokens[:, None], sequences.ids)
        return Sequences(ids, tokens, ended), state, ops.all(ended)


def likeliest_sequence(beams: int, length_penalty: float = 0.0, no_repeat: int = 0) -> BeamSearch | GreedySearch:
    """Search with so many beams; greedy with one."""
    return BeamSearch(beams, length_penalty, no_repeat) if beams > 1 else GreedySearch(no_repeat)
