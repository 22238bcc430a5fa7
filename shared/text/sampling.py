"""Sampling of tokens from logits.

The random numbers are the caller's, drawn on the host, so that a seed gives the same text on every backend.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from shared.text.subwords import END, PAD


def sampling_probabilities(
    logits: Any, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> Any:
    """Sampling probabilities after temperature, top-k, top-p and min-p.

    Args:
        logits: (…, tokens).
        temperature: above 0; the logits are divided by it first.
        top_k: keep the k likeliest tokens, and those as likely as the last of them; 0: all.
        top_p: then keep the fewest tokens that together have this probability, and those as likely as the last of
            them (nucleus sampling, Holtzman et al. 2019, arXiv:1904.09751); 1: all.
        min_p: then keep the tokens that have at least this fraction of the highest probability (Nguyen et al. 2024,
            arXiv:2407.01082); 0: all.

    Returns:
        (…, tokens) in float32, adding up to 1.
    """
    logits = ops.cast(logits, "float32") / temperature
    if 0 < top_k < logits.shape[-1]:
        least = ops.top_k(logits, top_k)[0][..., -1:]
        logits = ops.where(logits >= least, logits, -1e30)
    probabilities = ops.softmax(logits, axis=-1)
    if top_p < 1:
        falling = ops.flip(ops.sort(probabilities, axis=-1), axis=-1)
        likelier = ops.cumsum(falling, axis=-1) - falling  # the probability of those before
        least = ops.min(ops.where(likelier < top_p, falling, 2.0), axis=-1, keepdims=True)
        probabilities = ops.where(probabilities >= least, probabilities, 0.0)
    if min_p > 0:
        least = min_p * ops.max(probabilities, axis=-1, keepdims=True)
        probabilities = ops.where(probabilities >= least, probabilities, 0.0)
    if top_p < 1 or min_p > 0:
        probabilities = probabilities / ops.sum(probabilities, axis=-1, keepdims=True)
    return probabilities


def penalized_logits(logits: Any, seen: Any, penalty: float) -> Any:
    """Logits with a repetition penalty (Keskar et al. 2019, arXiv:1909.05858, section 4.1).

    Args:
        logits: (batch, tokens).
        seen: (batch, tokens), True for those that occurred.
        penalty: of these, positive logits are divided by it, negative ones multiplied; 1: none.

    Returns:
        (batch, tokens).
    """
    lower = ops.where(logits > 0, logits / penalty, logits * penalty)
    return ops.where(seen, lower, logits)


def draw_tokens(probabilities: Any, uniform: Any) -> Any:
    """Tokens by inverse transform sampling: where the cumulative probabilities pass uniform random numbers.

    Args:
        probabilities: (…, tokens).
        uniform: (…,), from 0 up to and not including 1.

    Returns:
        (…,), int32.
    """
    cumulated = ops.cumsum(probabilities, axis=-1)
    bound = ops.expand_dims(ops.cast(uniform, cumulated.dtype), -1) * cumulated[..., -1:]
    passed = ops.sum(ops.cast(cumulated <= bound, "int32"), axis=-1)
    # By rounding, the bound can be the whole sum.
    possible = ops.where(probabilities > 0, ops.arange(probabilities.shape[-1], dtype="int32"), 0)
    return ops.minimum(passed, ops.max(possible, axis=-1))


def sample_tokens(
    logits: Any, uniform: Any, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> Any:
    """Samples a token from each row of logits; see `sampling_probabilities`.

    Args:
        logits: (…, tokens).
        uniform: (…,), from 0 up to and not including 1, such as `numpy.random.Generator.random` gives.
        temperature: 0 takes the likeliest token.
        top_k: see there.
        top_p: see there.
        min_p: see there.

    Returns:
        (…,), int32.
    """
    if temperature == 0:
        return ops.cast(ops.argmax(logits, axis=-1), "int32")
    return draw_tokens(sampling_probabilities(logits, temperature, top_k, top_p, min_p), uniform)


class Draws(NamedTuple):
    """State of sampling: one sequence for each item."""

    ids: Any
    """(batch, length): tokens, then PAD."""
    last: Any
    """(batch,), the last tokens."""

    @property
    def best(self) -> Any:
        """(batch, length), the sequences."""
        return self.ids


@dataclass(frozen=True)
class Sampling:
    """Sampling of random sequences; see `sampling_probabilities` and `shared.text.decoding`."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    no_repeat: int = 0
    """No-repeat n-gram size; 0: off."""
    end: int | None = END
    """The token that ends a sequence; None: sequences never end."""
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    """See `penalized_logits`."""
    beams = 1

    def start(self, ids: np.ndarray) -> Draws:
        """Initial state, from ids (batch, length): a prompt, which is kept, then PAD."""
        return Draws(ids, ids[:, 0])

    def extend(
        self, draws: Draws, logits: Any, forbid: Callable, state: Any, index: Any, uniform: Any
    ) -> tuple[Draws, Any, Any]:
        """Appends the next token of the prompt, then random ones; see `shared.text.decoding.decoding_step`."""
        ids = draws.ids
        positions = ops.arange(ids.shape[1])
        here = positions == index + 1
        if self.repetition_penalty != 1:
            read = ops.where(positions <= index, ids, PAD)
            seen = ops.any(read[:, :, None] == ops.arange(logits.shape[-1], dtype="int32"), axis=1)
            logits = penalized_logits(logits, seen, self.repetition_penalty)
        tokens = sample_tokens(forbid(logits), uniform, self.temperature, self.top_k, self.top_p, self.min_p)
        given = ops.max(ops.where(here, ids, PAD), axis=1)
        tokens, done = ops.where(given == PAD, tokens, given), False
        if self.end is not None:
            ended = ops.any(ids == self.end, axis=1)
            tokens = ops.where(ended, PAD, tokens)
            done = ops.all(ended | (tokens == self.end))
        return Draws(ops.where(here, tokens[:, None], ids), tokens), state, done
