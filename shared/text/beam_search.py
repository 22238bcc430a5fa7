"""Search for the likeliest sequences of a model that predicts them token by token."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from shared.text.subwords import END, PAD, START, UNKNOWN

IMPOSSIBLE = -1e9
"""The log-probability of what must not be; finite, so that sums and differences stay numbers."""


class Hypotheses(NamedTuple):
    """Sequences that a search has found for each item of a batch, the best first."""

    ids: np.ndarray
    """(batch, beams, length): tokens, END, then PAD; START is left out."""
    scores: np.ndarray
    """(batch, beams): log-probability divided by the length penalty."""

    def best(self) -> list[list[int]]:
        """The tokens of the best sequence of each item, END and PAD left out."""
        return [[int(token) for token in row if token not in (END, PAD)] for row in self.ids[:, 0]]


class Beams(NamedTuple):
    """Where a search stands: sequences that go on (`live`), and those that have ended."""

    live_ids: Any
    """(batch, beams, length)."""
    live_scores: Any
    """(batch, beams), log-probabilities."""
    ended_ids: Any
    """(batch, beams, length)."""
    ended_scores: Any
    """(batch, beams), after the length penalty; `IMPOSSIBLE` where there is none yet."""


def length_penalty(length: Any, strength: float) -> Any:
    """What log-probabilities are divided by: ((5 + length) / 6)^strength (Wu et al. 2016, arXiv:1609.08144, eq. 14)."""
    return ((5 + ops.cast(length, "float32")) / 6) ** strength


def repeating_tokens(ids: Any, index: Any, size: int, vocabulary: int) -> Any:
    """Which next tokens would repeat a run of `size` tokens.

    Args:
        ids: (rows, length), tokens so far, then PAD.
        index: number of tokens so far.
        size: tokens of a run, at least 1.
        vocabulary: number of tokens.

    Returns:
        (rows, vocabulary), True for a token that would.
    """
    rows, length = ids.shape
    starts = ops.arange(length)
    seen = starts + size <= index  # runs that end before the next token
    for offset in range(size - 1):
        here = ops.take(ids, ops.minimum(starts + offset, length - 1), axis=1)
        last = ops.take(ids, ops.reshape(ops.maximum(index - size + 1 + offset, 0), (1,)), axis=1)
        seen = ops.logical_and(seen, here == last)
    seen = ops.broadcast_to(seen, (rows, length))
    after = ops.take(ids, ops.minimum(starts + size - 1, length - 1), axis=1)
    after = ops.where(seen, after, PAD)
    places = ops.stack([ops.repeat(ops.arange(rows), length), ops.reshape(after, (-1,))], axis=1)
    marks = ops.scatter_update(ops.zeros((rows, vocabulary)), places, ops.ones((rows * length,)))
    return marks > 0


def largest_entries(values: Any, count: int) -> tuple[Any, Any]:
    """The largest entries of each row and their places, (rows, count) each, the largest first.

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
    values, places = ops.top_k(values, count)
    places = ops.cast(places, "int32")
    return values, ops.take_along_axis(chosen, places // size, axis=1) * size + places % size


def best_of(scores: Any, ids: Any, count: int) -> tuple[Any, Any, Any]:
    """The best `count` of the candidates of each item: scores (batch, count), ids (batch, count, length), places."""
    scores, places = ops.top_k(scores, count)
    return scores, ops.take_along_axis(ids, ops.cast(places[..., None], "int32"), axis=1), places


def extend_beams(beams: Beams, logits: Any, index: Any, penalty: float, no_repeat: int) -> tuple[Beams, Any]:
    """One step of the search: every live sequence goes on with its likeliest tokens, and the best stay.

    Twice as many candidates as beams are looked at, so that as many go on even if all the others end. A candidate ends
    where END is among the best, as many as there are beams. An item that has as many ended sequences as beams is left
    as it is.

    Args:
        beams: where the search stands.
        logits: (batch · beams, vocabulary), of the next token.
        index: number of tokens so far, START left out.
        penalty: strength of the length penalty.
        no_repeat: no run of so many tokens may occur twice; 0: any may.

    Returns:
        Where it stands now, and the row (batch · beams,) of the sequence that each live one has grown from.
    """
    batch, count, length = beams.live_ids.shape
    vocabulary = logits.shape[-1]
    scores = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    tokens = ops.arange(vocabulary)
    banned = (tokens == PAD) | (tokens == UNKNOWN) | (tokens == START)
    banned = banned | ((index == length - 1) & (tokens != END))  # what has not ended ends here
    if no_repeat:
        flat = ops.reshape(beams.live_ids, (batch * count, length))
        repeating = repeating_tokens(flat, index, no_repeat, vocabulary)
        banned = banned | (repeating & (tokens != END))
    scores = ops.reshape(ops.where(banned, IMPOSSIBLE, scores), (batch, count, vocabulary))
    scores = ops.reshape(scores + beams.live_scores[..., None], (batch, count * vocabulary))

    scores, places = largest_entries(scores, 2 * count)
    origins, chosen = places // vocabulary, places % vocabulary
    ids = ops.take_along_axis(beams.live_ids, origins[..., None], axis=1)
    ids = ops.where(ops.arange(length) == index, chosen[..., None], ids)
    ends = chosen == END

    done = ops.all(beams.ended_scores > IMPOSSIBLE / 2, axis=1, keepdims=True)
    counts = ends & ~done & (ops.arange(places.shape[1]) < count) & (scores > IMPOSSIBLE / 2)
    ended_scores = ops.where(counts, scores / length_penalty(index + 1, penalty), IMPOSSIBLE)
    ended_scores, ended_ids, _ = best_of(
        ops.concatenate([beams.ended_scores, ended_scores], axis=1),
        ops.concatenate([beams.ended_ids, ids], axis=1),
        count,
    )
    live_scores, live_ids, kept = best_of(ops.where(ends, IMPOSSIBLE, scores), ids, count)
    grown_from = ops.take_along_axis(origins, ops.cast(kept, "int32"), axis=1) + ops.arange(batch)[:, None] * count
    return Beams(live_ids, live_scores, ended_ids, ended_scores), ops.reshape(grown_from, (-1,))


def search_step(step: Callable, penalty: float = 0.0, no_repeat: int = 0) -> Callable:
    """The step of `beam_search` as one function from tensors to tensors, to be compiled once and used again and again.

    Args:
        step: see `beam_search`.
        penalty: strength of the length penalty; 0: none.
        no_repeat: no run of so many tokens may occur twice; 0: any may.
    """

    def advance(beams, index, state, context):
        batch, count, _ = beams.live_ids.shape
        last = ops.take(beams.live_ids, ops.reshape(ops.maximum(index - 1, 0), (1,)), axis=2)
        last = ops.where(index == 0, START, ops.reshape(last, (batch * count,)))
        logits, state = step(last, index, state, context)
        beams, rows = extend_beams(beams, logits, index, penalty=penalty, no_repeat=no_repeat)
        state = keras.tree.map_structure(lambda x: ops.take(x, rows, axis=0), state)
        return beams, state, ops.all(beams.ended_scores > IMPOSSIBLE / 2)

    return advance


def beam_search(advance: Callable, state: Any, context: Any, batch: int, beams: int, length: int) -> Hypotheses:
    """Finds the likeliest sequences by beam search; with one beam it is greedy.

    Args:
        advance: `search_step(step, …)`, usually through `compiled_inference`. `step(tokens, index, state, context)`
            takes the last token (batch · beams,) of each sequence, at first START, its place (START has 0), the state
            and the context, and gives the logits (batch · beams, vocabulary) of the next, and the state then.
        state: nested structure of tensors with a leading axis of batch · beams, an item's beams together; it goes with
            the sequences as they are sorted.
        context: nested structure that stays as it is, such as what the encoder found, an entry for each row of `state`.
        batch: number of items.
        beams: number of sequences kept for each.
        length: tokens that a sequence may have, END included; what has not ended by then ends there.

    Returns:
        The ended sequences of each item. Where fewer than `beams` were possible, the others have scores below -1e8.
    """
    empty = np.full((batch, beams, length), PAD, np.int32)
    none = np.full((batch, beams), IMPOSSIBLE, np.float32)
    first = none.copy()
    first[:, 0] = 0  # at first all are alike: let one go on
    place = Beams(empty, first, empty, none)
    for index in range(length):
        place, state, done = advance(place, np.int32(index), state, context)
        if bool(done):
            break
    ids, scores = (ops.convert_to_numpy(each) for each in (place.ended_ids, place.ended_scores))
    return Hypotheses(np.where(scores[..., None] > IMPOSSIBLE / 2, ids, PAD), scores)
