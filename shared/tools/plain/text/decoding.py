"""Decoding."""

from shared.text.beam_search import BeamSearch
from shared.text.sampling import Sampling

Method = BeamSearch | Sampling
