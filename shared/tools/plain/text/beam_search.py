"""Beam search."""

from shared.text.beam_search import BeamSearch


def likeliest_sequence(beams: int, length_penalty: float = 0.0, no_repeat: int = 0) -> BeamSearch:
    """The search with so many beams; one is greedy search."""
    return BeamSearch(beams, length_penalty, no_repeat)
