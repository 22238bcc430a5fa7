"""The vocabulary of subwords."""

import numpy as np
import pytest
from conftest import refused_in_one_line

from shared.errors import UsageError
from shared.text.subwords import (
    END,
    PAD,
    START,
    UNKNOWN,
    Subwords,
    VocabularySizeError,
    kept_subwords,
    read_subwords,
    train_subwords,
)

pytestmark = pytest.mark.once

LINES = [f"Der Hund Nummer {n} läuft über die Straße, und {n % 7} Katzen sehen ihm zu." for n in range(200)]


@pytest.fixture(scope="module")
def subwords():
    return Subwords(train_subwords(LINES, 350))


def test_the_same_lines_give_the_same_vocabulary():
    assert train_subwords(LINES, 350) == train_subwords(iter(LINES), 350)
    assert train_subwords(LINES, 350) != train_subwords([*LINES, *["ganz anders"] * 99], 350)


@pytest.mark.parametrize(
    "text",
    [
        LINES[3],
        "",
        "Γειά σου Κόσμε",
        "犬が走る。",
        "שלום",
        "👩‍👩‍👧‍👦 🐶!",
        "x" * 20000,
        "½ ﬁ Å",
        "a\u0301",
        "<s> </s> <pad>",
    ],
)  # fmt: skip
def test_any_text_survives(subwords, text):
    ids = subwords.encode(text)
    assert subwords.decode(ids) == text
    assert not {PAD, UNKNOWN, START, END} & set(ids)
    assert all(0 <= number < len(subwords) for number in ids)


def test_common_words_are_short_and_blanks_are_one(subwords):
    assert len(subwords.encode("Hund Straße")) <= 4
    assert subwords.encode("Der  Hund ") == subwords.encode("Der Hund")
    assert "".join(subwords.pieces(subwords.encode("Der Hund"))) == " Der Hund"


def test_what_is_no_text_is_written_all_the_same(subwords):
    assert subwords.decode(subwords.encode("Hund \udcff Katze")) == "Hund ? Katze"


def test_special_tokens_give_nothing(subwords):
    ids = subwords.encode("Der Hund läuft")
    assert subwords.decode(np.array([START, *ids, END, PAD, PAD], np.int32)) == "Der Hund läuft"


def test_symbols_are_kept_whole():
    subwords = Subwords(train_subwords(LINES, 350, symbols=("<turn>",)))
    ids = subwords.encode("Hund<turn>Katze")
    assert "<turn>" in subwords.pieces(ids)
    assert subwords.decode(ids) == "Hund<turn>Katze"


def test_a_vocabulary_that_the_text_does_not_allow():
    with pytest.raises(
        UsageError, match=r"--vocabulary 20000 is more than this text allows: take at most (\d+)"
    ) as caught:
        train_subwords(LINES, 20000)
    most = int(str(caught.value).split()[-1])
    assert len(Subwords(train_subwords(LINES, most))) == most
    with pytest.raises(UsageError, match=f"take at most {most}"):
        train_subwords(LINES, most + 1)
    with pytest.raises(UsageError, match=r"too small for this text: take at least (\d+)") as caught:
        train_subwords(LINES, 100)
    least = int(str(caught.value).split()[-1])
    assert len(Subwords(train_subwords(LINES, least))) == least


@pytest.mark.parametrize("lines", [[], [""], ["  ", " "]])
def test_no_text(lines):
    with pytest.raises(UsageError, match="no text to learn subwords from"):
        train_subwords(lines, 300)


def test_kept_with_the_run(tmp_path):
    path = tmp_path / "subwords.model"
    first = kept_subwords(path, LINES, 350)
    assert kept_subwords(path, ["something else"], 999).encode(LINES[0]) == first.encode(LINES[0])
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UsageError, match="holds no vocabulary"):
        read_subwords(path)
    with pytest.raises(UsageError, match="holds no vocabulary"):
        read_subwords(tmp_path / "nothing")


def test_where_no_size_was_asked_for_the_nearest_that_the_text_allows_is_taken(tmp_path, capsys):
    for size, path in ((20000, tmp_path / "large"), (100, tmp_path / "small")):
        with pytest.raises(VocabularySizeError) as caught:
            kept_subwords(path, LINES, size)
        assert not list(tmp_path.glob(f"{path.name}*"))
        subwords = kept_subwords(path, iter(LINES), size, exactly=False)
        assert len(subwords) == caught.value.nearest
        assert capsys.readouterr().err == f"WARNING: {caught.value}; taking {caught.value.nearest}\n"
        assert len(kept_subwords(path, LINES, size, exactly=False)) == len(subwords)  # as a resume finds it
        assert capsys.readouterr().err == ""


def test_a_kept_vocabulary_of_other_data_is_refused(tmp_path):
    path = tmp_path / "subwords.model"
    kept_subwords(path, LINES, 350, data="talks.tsv 0123")
    kept_subwords(path, LINES, 350, data="talks.tsv 0123")
    with refused_in_one_line('subwords.model is of {"data": "talks.tsv 0123"}, not of {"data": "talks.tsv 4567"}'):
        kept_subwords(path, LINES, 350, data="talks.tsv 4567")
    (tmp_path / "subwords.json").unlink()  # as runs of earlier versions have it
    kept_subwords(path, LINES, 350, data="talks.tsv 4567")
