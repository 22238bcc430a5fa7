"""Texts as codes of characters."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from shared.data.text.characters import UNKNOWN_CHARACTER, character_codes
from shared.errors import UsageError

TINY_SHAKESPEARE = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"


class TextData(NamedTuple):
    """A text as codes of its characters (characters,) in uint16, split for training, choices and measuring."""

    name: str
    alphabet: str  # the character of each code; code 0 stands for all others
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    found: str


def load_text(name: str, directory: Path | None) -> TextData:
    """Loads tiny Shakespeare, a text file in UTF-8, or the text files of a folder, split 90/5/5 in its order."""
    if name == "auto":
        name, files = "tiny_shakespeare", [keras.utils.get_file(origin=TINY_SHAKESPEARE, cache_dir=directory)]
    else:
        files = sorted(Path(name).rglob("*.txt")) if Path(name).is_dir() else [name]
    text = "\n".join(Path(file).read_text(encoding="utf-8") for file in files)
    if len(text) < 1000:
        raise UsageError(f"{name} has only {len(text)} characters: at least 1,000 are needed to learn from")
    frequent = [character for character, _ in Counter(text).most_common(4095)]
    alphabet = UNKNOWN_CHARACTER + "".join(sorted(frequent))
    codes = character_codes(text, alphabet)
    train = int(len(codes) * 0.9)
    parts = np.split(codes, [train, train + int((len(codes) - train) * 0.5)])
    found = f"{len(codes):,} characters, {len(alphabet) - 1:,} of them different"
    return TextData(Path(name).name, alphabet, *parts, found=found)
