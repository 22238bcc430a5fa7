"""Options of recipes that train a language model on a text."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from shared.data.text.characters import TextData
from shared.text.sampling import Sampling
from shared.training.options import Options
from shared.training.ranges import Count, Fraction, Limit, NonNegative, Positive, Whole, ranged


@dataclass(kw_only=True)
class TextOptions(Options):
    """Options of recipes that train a language model on a text, and generate text by sampling."""

    free_on_resume: ClassVar[tuple[str, ...]] = (
        "length", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "sample_seed",
    )  # fmt: skip

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
        """The data that the options leave; a UsageError if the options do not fit them."""
        limits = {"train": self.train_characters, "validation": self.test_characters, "test": self.test_characters}
        parts = {name: getattr(data, name)[:limit] for name, limit in limits.items()}
        fewer = [f"{len(part):,} of {name}" for name, part in parts.items() if len(part) < len(getattr(data, name))]
        used = f"; used are {', '.join(fewer)}" if fewer else ""
        self.require_windows(*parts.values())
        return data._replace(**parts, found=f"{data.name}: {data.found}{used}")

    def require_windows(self, train: np.ndarray, validation: np.ndarray, test: np.ndarray) -> None:
        """Refuses windows and batches that the parts of a text, in tokens, are too short for."""
        longest = min(len(validation), len(test)) - 1
        rule = f"must be at most {longest} for this text"
        if self.batch_size > (most := len(train) // longest - 1):
            rule += f" (and then --batch-size at most {most})"
        self.require("window", self.window <= longest, rule)
        most = len(train) // self.window - 1
        self.require("batch_size", self.batch_size <= most, f"must be at most the {most} windows of the training text")

    def sampling(self, end: int | None = None) -> Sampling:
        """The decoding method, of sequences that a token ends, if any."""
        return Sampling(
            self.temperature, self.top_k, self.top_p, end=end, min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
        )  # fmt: skip


@dataclass(kw_only=True)
class ChatOptions(TextOptions):
    """Options of recipes that may fine-tune a language model on conversations."""

    finetune: Literal["none", "dialogues"] = "none"
    """Also fine-tune the model on conversations, to talk with it; needs --vocabulary."""
    dialogues: str = "auto"
    """Conversations: dailydialog, chitchat or a file; auto: dailydialog if available."""
    finetune_epochs: Count = 2
    """Passes over the conversations."""
    finetune_batch_size: Count = 32
    """Answers per step."""
    finetune_learning_rate: Positive = 1e-3
    """The highest learning rate of fine-tuning."""
    lora: Whole = 0
    """Rank of low-rank adaptation (LoRA), which trains an update of the dense layers alone; 0: all weights."""
    turns: Count = 2
    """Turns of the conversation in the context."""
    context: Count = 40
    """Maximum context length, in tokens; what was said first is cut off."""
    answer: Count = 60
    """Maximum answer length, in tokens; longer ones are not trained on, but evaluated."""
    train_conversations: Limit = None
    """Limit training to the first N conversations."""
    held_out: Limit = None
    """Limit perplexity to N answers of each held-out part."""
    prefer: Literal["none", "questions", "brevity"] = "none"
    """After fine-tuning also direct preference optimization (DPO), towards answers that ask, or that are brief."""
    preference_prompts: Count = 2000
    """Training conversations whose answers are sampled to make preference pairs."""
    preference_epochs: Count = 2
    """Passes over the preference pairs."""
    preference_learning_rate: Positive = 1e-4
    """The highest learning rate of preference optimization."""
    preference_beta: Positive = 0.1
    """Beta of DPO: the higher, the less the model may differ from the fine-tuned one."""
