"""Texts: files of any kind, tiny Shakespeare, the embedded one, and the windows cut out of them."""

import codecs
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import directory_with

from shared.data.encoding import read_text, text_blocks
from shared.data.text import (
    UNKNOWN_CHARACTER,
    TextBatches,
    character_codes,
    consecutive_windows,
    load_text,
)
from shared.errors import UsageError

pytestmark = pytest.mark.once

LINES = "Grüße, Ωmega und 猫 — \N{GRINNING FACE}!\n" * 60


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_RECIPES_CACHE", str(tmp_path / "cache"))


def written(path, content):
    path.write_bytes(content)
    return str(path)


def text_of(codes, alphabet):
    return "".join(alphabet[code] for code in codes)


def test_a_file_comes_back_split_in_its_order(tmp_path):
    data = load_text(written(tmp_path / "poems.txt", LINES.encode()), None)
    assert data.name == "poems.txt"
    parts = [text_of(part, data.alphabet) for part in (data.train, data.validation, data.test)]
    assert "".join(parts) == LINES
    assert [len(part) for part in parts] == [int(0.9 * len(LINES)), len(LINES) // 20, len(LINES) // 20]
    assert data.alphabet[0] == UNKNOWN_CHARACTER
    assert set(data.alphabet[1:]) == set(LINES)
    assert data.train.dtype == np.uint16
    assert not list((tmp_path / "cache").rglob(".unfinished*"))


def test_codes_lie_in_a_file(tmp_path):
    codes = load_text(written(tmp_path / "poems.txt", LINES.encode()), None).train
    while codes.base is not None and not isinstance(codes, np.memmap):
        codes = codes.base
    assert isinstance(codes, np.memmap)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1 << 20])
def test_blocks_may_cut_characters_and_ends_of_lines(tmp_path, size):
    content = b"\xef\xbb\xbf" + "a\r\nß\r\n\N{GRINNING FACE}\r".encode()
    blocks = text_blocks(Path(written(tmp_path / "text.txt", content)), size)
    assert "".join(blocks) == "a\nß\n\N{GRINNING FACE}\n"


@pytest.mark.parametrize("size", [1, 4, 7, 1 << 20])
@pytest.mark.parametrize(
    ("content", "line", "problem"),
    [
        ("äö\n".encode() * 6 + b"x\xe9y", 7, "byte 0xe9 is not UTF-8"),
        (b"abc\xc3", 1, "byte 0xc3 is not UTF-8"),
        ("a\n".encode("utf-16") + b"\x00\xd8x\x00", 2, "byte 0x00 is not UTF-16-LE"),
        (b"abc\nd\0", 2, "a null byte"),
    ],
)
def test_other_encodings_are_refused_with_the_line(tmp_path, content, line, problem, size):
    with pytest.raises(UsageError, match=rf"text.txt, line {line}: {problem}.*: save .* in UTF-8"):
        list(text_blocks(Path(written(tmp_path / "text.txt", content)), size))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_the_encoding_that_a_byte_order_mark_declares_is_read(tmp_path, encoding):
    path = Path(written(tmp_path / "text.txt", LINES.encode(encoding)))
    assert "".join(text_blocks(path, 7)) == read_text(path) == LINES
    path.write_bytes(codecs.BOM_UTF16_BE + LINES.encode("utf-16-be"))
    assert read_text(path) == LINES


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty: at least 1,000 are needed"),
        (b"one line\n", "has only 9 characters"),
        ("text ".encode("utf-16-le") * 500, "a null byte"),
    ],
)
def test_what_is_no_text_to_learn_from(tmp_path, content, message):
    with pytest.raises(UsageError, match=message) as error:
        load_text(written(tmp_path / "bad.txt", content), None)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "cache").glob("decoded/*"))


def test_no_such_file(tmp_path):
    with pytest.raises(UsageError, match=r"no text '.*nothing.txt': choose one of auto, tiny_shakespeare, chitchat"):
        load_text(str(tmp_path / "nothing.txt"), tmp_path)
    with pytest.raises(UsageError, match="is a folder"):
        load_text(str(tmp_path), tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read all files")
def test_a_file_that_may_not_be_read(tmp_path):
    path = written(tmp_path / "secret.txt", LINES.encode())
    Path(path).chmod(0)
    with pytest.raises(UsageError, match="cannot be read"):
        load_text(path, None)


def test_a_changed_file_is_read_again(tmp_path):
    first = load_text(written(tmp_path / "text.txt", b"ab\n" * 500), None)
    second = load_text(written(tmp_path / "text.txt", b"cd\n" * 500), None)
    assert (first.alphabet[1:], second.alphabet[1:]) == ("\nab", "\ncd")
    assert first.fingerprint != second.fingerprint


def test_a_damaged_set_of_tfds(tmp_path):
    (tmp_path / "tfds" / "tiny_shakespeare" / "1.0.0").mkdir(parents=True)
    (tmp_path / "tfds" / "tiny_shakespeare" / "1.0.0" / "dataset_info.json").write_text("{")
    with pytest.raises(UsageError, match="cannot be read as a text"):
        load_text("tiny_shakespeare", tmp_path)


def test_tiny_shakespeare():
    directory_with("tfds/tiny_shakespeare")
    data = load_text("auto", None)
    assert data.name == "tiny_shakespeare"
    assert [len(part) for part in data[2:5]] == [1003854, 55770, 55770]  # as TFDS splits it
    assert len(data.alphabet) == 1 + 65
    assert text_of(data.train[:14], data.alphabet) == "First Citizen:"


def test_offline_there_is_the_embedded_text(offline, capsys):
    data = load_text("auto", None)
    assert data.name == "chitchat"
    assert "WARNING: no tiny_shakespeare, training on the embedded chitchat instead" in capsys.readouterr().err
    assert len(data.train) > 1_000_000
    assert " the " in text_of(data.validation[:5000], data.alphabet)
    with pytest.raises(UsageError, match="tiny_shakespeare is not in the data directory and cannot be downloaded"):
        load_text("tiny_shakespeare", None)


def test_unknown_characters_have_code_0():
    assert character_codes("aXb\N{GRINNING FACE}", UNKNOWN_CHARACTER + "ab").tolist() == [1, 0, 2, 0]


def batches_of(characters=1000, window=16, batch_size=4, seed=0):
    return TextBatches(np.arange(characters, dtype=np.uint16), window, batch_size, seed)


def test_windows_and_what_follows_them():
    inputs, targets = batches_of()[0]
    assert inputs.shape == targets.shape == (4, 16)
    assert inputs.dtype == targets.dtype == np.int32
    np.testing.assert_array_equal(targets, inputs + 1)


def test_an_epoch_reads_each_place_at_most_once_and_almost_all():
    batches = batches_of()
    seen = np.concatenate([batches[index][0].ravel() for index in range(len(batches))])
    assert len(np.unique(seen)) == len(seen) == len(batches) * 4 * 16
    assert len(seen) > 1000 - 16 * 5


def test_epochs_differ_and_a_batch_depends_on_its_place_alone():
    batches = batches_of()
    first = batches[2]
    batches.epoch = 1
    assert (batches[2][0] != first[0]).any()
    again = batches_of()
    again.first = 2
    np.testing.assert_array_equal(again[0], first)


@pytest.mark.parametrize(("characters", "batch_size"), [(80, 4), (81, 4), (1000, 4), (33, 1), (32, 1)])
def test_the_shortest_text_for_a_batch(characters, batch_size):
    batches = batches_of(characters, batch_size=batch_size)
    assert len(batches) >= 1
    for epoch in range(40):  # wherever it is cut
        batches.epoch = epoch
        for index in range(len(batches)):
            assert batches[index][1].max() < characters


def test_consecutive_windows():
    inputs, targets = consecutive_windows(np.arange(11, dtype=np.uint16), 5)
    assert inputs.tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert targets.tolist() == [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]
