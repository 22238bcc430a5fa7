"""Options of recipes that train a language model on a text."""

from dataclasses import dataclass
from typing import ClassVar

from shared.data.text.characters import TextData, load_text
from shared.text.sampling import Sampling
from shared.training.options import Options
from shared.training.ranges import Fraction, Limit, NonNegative, Positive, Whole, ranged


@dataclass(kw_only=True)
class TextOptions(Options):
    """Options of recipes that train a language model on a text, and generate text by sampling."""

    free_on_resume: ClassVar[tuple[str, ...]] = (
        "length", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "sample_seed",
    )  # fmt: skip

    window: ranged(int, least=2) = 128
    """Sequence length in training, in characters."""
    patience: Limit = None
    """Early stopping: epochs without a lower validation loss; the best weights are taken in any case."""
    train_characters: ranged(int, least=2, optional=True) = None
    """Limit training to the first N characters."""
    test_characters: ranged(int, least=2, optional=True) = 100_000
    """Limit validation and evaluation to the first N characters of each held-out part."""
    length: Whole = 1000
    """Number of characters to generate."""
    temperature: NonNegative = 0.8
    """Sampling temperature; 0 is greedy."""
    top_k: Whole = 0
    """Top-k sampling: among the k likeliest characters; 0: all."""
    top_p: ranged(float, above=0, most=1) = 1.0
    """Top-p (nucleus) sampling: among the likeliest characters that together have this probability."""
    min_p: Fraction = 0.0
    """Min-p sampling: among the characters that have at least this fraction of the highest probability; 0: all."""
    repetition_penalty: Positive = 1.0
    """Repetition penalty: makes characters that occurred less likely; 1: none."""
    sample_seed: Whole = 0
    """Seed of sampling."""

    def load(self) -> TextData:
        """The data; a UsageError if the options do not fit them."""
        data = load_text(self.data, self.data_dir)
        limits = {"train": self.train_characters, "validation": self.test_characters, "test": self.test_characters}
        parts = {name: getattr(data, name)[:limit] for name, limit in limits.items()}
        fewer = [f"{len(part):,} of {name}" for name, part in parts.items() if len(part) < len(getattr(data, name))]
        used = f"; used are {', '.join(fewer)}" if fewer else ""
        data = data._replace(**parts, found=f"{data.name}: {data.found}{used}")
        longest = min(len(data.validation), len(data.test)) - 1
        rule = f"must be at most {longest} for this text"
        if self.batch_size > (most := len(data.train) // longest - 1):
            rule += f" (and then --batch-size at most {most})"
        self.require("window", self.window <= longest, rule)
        most = len(data.train) // self.window - 1
        self.require("batch_size", self.batch_size <= most, f"must be at most the {most} windows of the training text")
        return data

    def sampling(self) -> Sampling:
        """The decoding method, of sequences that never end."""
        return Sampling(
            self.temperature, self.top_k, self.top_p, end=None, min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
        )  # fmt: skip
