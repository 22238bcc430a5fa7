"""Beam search."""

from typing import Any

from keras import ops

from shared.text.beam_search import BeamSearch


def largest_entries(values: Any, count: int) -> tuple[Any, Any]:
    """The largest entries of each row and their indices, (rows, count) each, largest first."""
    values, indices = ops.top_k(values, count)
    return values, ops.cast(indices, "int32")


def likeliest_sequence(beams: int, length_penalty: float = 0.0, no_repeat: int = 0) -> BeamSearch:
    """The search with so many beams; one is greedy search."""
    return BeamSearch(beams, length_penalty, no_repeat)
