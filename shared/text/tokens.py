"""Texts as tokens of a language model: characters, or subwords by byte-pair encoding."""

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shared.data.arrays import cached_arrays, writing_to_cache
from shared.data.text.characters import UNKNOWN_CHARACTER, TextData, character_codes, code_points
from shared.files import cache_directory
from shared.text.subwords import Subwords, kept_subwords

LEARNED_FROM = 20_000_000
"""Maximum number of characters that a vocabulary is learned from, which bounds memory."""


class CharacterVocabulary:
    """Tokenizer: text to codes of characters and back; code 0, for all others, is left out.

    Args:
        alphabet: the character of each code.
    """

    def __init__(self, alphabet: str):
        self.alphabet = alphabet

    def __len__(self) -> int:
        return len(self.alphabet)

    def encode(self, text: str) -> list[int]:
        """Codes of a text."""
        return [int(code) for code in character_codes(text, self.alphabet) if code]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of codes."""
        return "".join(self.alphabet[int(code)] for code in ids if code)


Vocabulary = CharacterVocabulary | Subwords


class TokenizedText(NamedTuple):
    """A text as token ids (tokens,), memory-mapped, split into training, validation and test parts."""

    vocabulary: Vocabulary
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def as_characters(data: TextData) -> TokenizedText:
    """A text with characters as tokens."""
    return TokenizedText(CharacterVocabulary(data.alphabet), data.train, data.validation, data.test)


def as_subwords(data: TextData, path: Path, size: int) -> TokenizedText:
    """A text with subwords as tokens, learned from the training part; spaces and line ends are kept.

    Args:
        data: the text.
        path: of the vocabulary, in the directory of a run; see `kept_subwords`.
        size: vocabulary size.
    """
    lines = (line for block in text_of(data.train[:LEARNED_FROM], data.alphabet) for line in block.split("\n"))
    identity = f"{data.name} {data.fingerprint} {len(data.train)}"
    subwords = kept_subwords(
        path, lines, size, data=identity, symbols=("\n",), keep_spaces=True
    )  # fmt: skip
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    lengths = [len(part) for part in parts.values()]
    key = hashlib.sha256(repr((data.fingerprint, lengths)).encode() + path.read_bytes()).hexdigest()[:16]

    def encoded() -> tuple[dict[str, np.ndarray], dict]:
        return {name: encoded_part(part, data.alphabet, subwords) for name, part in parts.items()}, {}

    arrays, _ = cached_arrays(cache_directory() / "decoded" / f"subwords-{key}", encoded)
    return TokenizedText(subwords, **arrays)


def text_of(codes: np.ndarray, alphabet: str, size: int = 1 << 20) -> Iterator[str]:
    """The text of codes of characters, in blocks that end at the end of a line where there is one."""
    points, start = code_points(alphabet), 0
    ends = np.array([code for code, character in enumerate(alphabet) if character == "\n"], codes.dtype)
    while start < len(codes):
        block = codes[start : start + size]
        if start + size < len(codes) and len(found := np.flatnonzero(np.isin(block, ends))):
            block = block[: found[-1] + 1]
        yield points[block].tobytes().decode("utf-32-le", "surrogatepass")
        start += len(block)


def encoded_part(codes: np.ndarray, alphabet: str, subwords: Subwords) -> np.ndarray:
    """The subwords (tokens,) of a text in codes of characters, memory-mapped."""
    with writing_to_cache(), tempfile.TemporaryFile(dir=cache_directory()) as file:
        for block in text_of(codes, alphabet):
            np.array(subwords.encode(block), np.uint16).tofile(file)
        file.flush()
        return np.memmap(file, np.uint16, "r")


def decoded_stream(tokens: Iterable[int], vocabulary: Vocabulary) -> Iterator[str]:
    """The text of tokens as they come; the bytes of a character are put together first."""
    waiting: list[int] = []
    for token in tokens:
        waiting.append(int(token))
        text = vocabulary.decode(waiting)
        if not text.endswith(UNKNOWN_CHARACTER) or len(waiting) == 4:
            yield text
            waiting = []
