"""Options of recipes that train a language model on a text."""

from dataclasses import dataclass

import numpy as np

from shared.data.text.characters import TextData
from shared.text.sampling import Sampling
from shared.training.options import Options
from shared.training.ranges import Fraction, Limit, NonNegative, Positive, Whole, ranged


@dataclass(kw_only=True)
class TextOptions(Options):
    """Those of a recipe that trains a language model on a text, and generates text by sampling."""

    window: ranged(int, least=2) = 128
    """Sequence length in training, in tokens."""
    patience: Limit = None
    """Early stopping: epochs without a lower validation loss; the best weights are taken in any case."""
    train_characters: ranged(int, least=2, optional=True) = None
    """Limit training to the first N characters."""
    test_characters: ranged(int, least=2, optional=True) = 100_000
    """Limit validation and evaluation to the first N characters of each held-out part."""
    length: Whole = 1000
    """Number of tokens to generate."""
    temperature: NonNegative = 0.8
    """Sampling temperature; 0 is greedy."""
    top_k: Whole = 0
    """Top-k sampling: among the k likeliest tokens; 0: all."""
    top_p: ranged(float, above=0, most=1) = 1.0
    """Top-p (nucleus) sampling: among the likeliest tokens that together have this probability."""
    min_p: Fraction = 0.0
    """Min-p sampling: among the tokens that have at least this fraction of the highest probability; 0: all."""
    repetition_penalty: Positive = 1.0
    """Repetition penalty: makes tokens that occurred less likely; 1: none."""
    sample_seed: Whole = 0
    """Seed of sampling."""

    def limited(self, data: TextData) -> TextData:
        """The data that the options leave."""
        held_out = {part: getattr(data, part)[: self.test_characters] for part in ("validation", "test")}
        return data._replace(train=data.train[: self.train_characters], **held_out)

    def require_windows(self, train: np.ndarray, validation: np.ndarray, test: np.ndarray) -> None:
        self.require("window", self.window < min(len(train), len(validation), len(test)), "must fit into each part")

    def sampling(self, end: int | None = None) -> Sampling:
        """The decoding method, of sequences that a token ends, if any."""
        return Sampling(
            self.temperature, self.top_k, self.top_p, end=end, min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
        )  # fmt: skip
