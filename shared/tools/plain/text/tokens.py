"""Texts as tokens of a language model."""

from pathlib import Path

import numpy as np

from shared.data.text.characters import TextData
from shared.text.subwords import kept_subwords
from shared.text.tokens import TokenizedText, text_of


def as_subwords(data: TextData, path: Path, size: int) -> TokenizedText:
    """A text with subwords as tokens, learned from the training part; spaces and line ends are kept."""
    train, validation, test = (
        "".join(text_of(part, data.alphabet)) for part in (data.train, data.validation, data.test)
    )
    subwords = kept_subwords(path, train.split("\n"), size, symbols=("\n",), keep_spaces=True)
    return TokenizedText(subwords, *(np.array(subwords.encode(part), np.uint16) for part in (train, validation, test)))
