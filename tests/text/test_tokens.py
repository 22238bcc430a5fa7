"""Texts as tokens: nothing of a text is lost, whatever it is cut into."""

import numpy as np
import pytest

from shared.data.text.characters import UNKNOWN_CHARACTER, TextData, character_codes
from shared.text.tokens import CharacterVocabulary, as_characters, as_subwords, decoded_stream, text_of

pytestmark = pytest.mark.once

VERSE = "ROMEO:\n  But, soft!  what light\tthrough yonder\n\nwindow breaks? Ärger 猫 🐶\n" * 60


def data_of(text):
    alphabet = UNKNOWN_CHARACTER + "".join(sorted(set(text)))
    codes = character_codes(text, alphabet)
    parts = np.split(codes, [len(codes) * 8 // 10, len(codes) * 9 // 10])
    return TextData("verse", alphabet, *parts, fingerprint="0", found="")


@pytest.fixture
def data(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_RECIPES_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return data_of(VERSE)


def test_characters(data):
    text = as_characters(data)
    assert text.vocabulary.encode("ROMEO, x") == [data.alphabet.index(each) for each in "ROMEO, "]
    assert text.vocabulary.decode(data.train) == VERSE[: len(data.train)]
    assert CharacterVocabulary("�ab").decode([0, 2, 1]) == "ba"


@pytest.mark.parametrize("size", [1, 30, 10**6])
def test_a_text_in_blocks_is_the_text(data, size):
    blocks = list(text_of(data.train, data.alphabet, size))
    assert "".join(blocks) == VERSE[: len(data.train)]
    assert all(block.endswith("\n") for block in blocks[:-1] if "\n" in block)


def test_subwords_keep_every_character(data, tmp_path):
    text = as_subwords(data, tmp_path / "subwords.model", 330)
    assert len(text.vocabulary) == 330
    for part in ("train", "validation", "test"):
        tokens = getattr(text, part)
        assert isinstance(tokens, np.memmap)
        assert tokens.dtype == np.uint16
        original = "".join(text_of(getattr(data, part), data.alphabet))
        assert text.vocabulary.decode(tokens) == original
        assert "".join(decoded_stream(tokens, text.vocabulary)) == original
        assert len(tokens) < len(original) / 2
        assert (tokens > 3).all(), "none of PAD, UNKNOWN, START and END"
    again = as_subwords(data, tmp_path / "subwords.model", 330)
    np.testing.assert_array_equal(again.train, text.train)


def test_bytes_are_put_together(data, tmp_path):
    vocabulary = as_subwords(data, tmp_path / "subwords.model", 330).vocabulary
    ids = vocabulary.encode("a\nЖ  b ")
    assert list(decoded_stream(ids, vocabulary)) != [vocabulary.decode([each]) for each in ids]
    assert "".join(decoded_stream(ids, vocabulary)) == "a\nЖ  b "
