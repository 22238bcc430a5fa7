"""Texts: files of any kind, tiny Shakespeare, the bundled one, and the windows cut out of them."""

import codecs
import gzip
import io
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import directory_with, refused_in_one_line

from shared.data.encoding import read_text, text_blocks, text_lines
from shared.data.text.characters import UNKNOWN_CHARACTER, character_codes, load_text
from shared.errors import UsageError
from shared.text.batches import TextBatches, consecutive_windows

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
        (b"%PDF-1.7" * 500, "is a PDF, not a text file: unpack it, or save it as plain text in UTF-8"),
        (b"PK\x03\x04" * 500, "is a zip archive or an office document"),
        (b"\x1f\x8b" * 500, r"cannot be read \("),
        (gzip.compress(b"%PDF-1.7" * 500), "is a PDF"),
        (codecs.BOM_UTF8, "is empty"),
        (codecs.BOM_UTF16_LE + b"a", "line 1: byte 0x61 is not UTF-16-LE"),
        (b"\xff", "line 1: byte 0xff is not UTF-8"),
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
    with pytest.raises(UsageError, match="holds no text files; nothing passed over"):
        load_text(str(tmp_path), tmp_path)
    with refused_in_one_line("no text 'xx"):
        load_text("x" * 5000, tmp_path)


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


def test_a_changed_file_in_a_folder_is_read_again(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    alphabets = []
    for letters in (b"ab\n", b"cd\n"):
        (folder / "1.txt").write_bytes(letters * 500)
        os.utime(folder / "1.txt", (0, 0))
        alphabets.append(load_text(str(folder), None).alphabet[1:])
    assert alphabets == ["\nab", "\ncd"]


def test_a_folder_of_texts_is_joined_in_order_of_names(tmp_path):
    folder = tmp_path / "texts"
    for name, content in {
        "1/b.txt": b"second\r\n", "1/a.txt": b"first", "2.md": "third\n".encode("utf-16"),
        "3": gzip.compress(b"fourth\n"), "4.txt": b"", "5.TXT": b"last\n" * 300,
        "book.pdf": b"%PDF-1.7", "cover.jpg": b"\xff\xd8\xff\xe0", "tool": b"ELF\0",
        "._5.TXT": b"\0\0", "__MACOSX/1/a.txt": b"no\n", "1/.ipynb_checkpoints/a.txt": b"no\n", "Thumbs.db": b"no\n",
    }.items():  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    data = load_text(str(folder), None)
    text = "".join(text_of(part, data.alphabet) for part in (data.train, data.validation, data.test))
    assert text == "first\nsecond\nthird\nfourth\n" + "last\n" * 300
    assert data.name == "texts"
    assert data.found == (
        "1,526 characters, 15 different: 1,373 for training, 76 for validation, 77 for testing; "
        "passed over 3: 3 that are no text (book.pdf, …)"
    )
    (folder / "0.txt").write_bytes(b"caf\xe9\n")
    with refused_in_one_line("0.txt, line 1: byte 0xe9 is not UTF-8"):
        load_text(str(folder), None)


def test_what_is_said_of_a_text_with_rare_characters(tmp_path):
    characters = "".join(map(chr, range(0x4E00, 0x4E00 + 5000)))
    data = load_text(written(tmp_path / "signs.txt", (characters + characters[:4095]).encode()), None)
    assert data.found.startswith(
        "9,095 characters, 4,095 different, 905 of them not among the 4,095 most frequent: 8,185"
    )


def test_what_gzip_has_packed_is_read(tmp_path):
    data = load_text(written(tmp_path / "text", gzip.compress(LINES.encode())), None)
    assert len(data.train) == int(0.9 * len(LINES))
    with refused_in_one_line("cannot be read (Compressed file ended"):
        load_text(written(tmp_path / "torn", gzip.compress(LINES.encode())[:-9]), None)


@pytest.mark.parametrize("size", [1, 5, 1 << 20])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_lines_of_a_stream_come_one_by_one(encoding, size):
    lines = ["é", "", "\u2028\x85", "猫" * 9, "last"]
    file = io.BufferedReader(io.BytesIO("\r\n".join(lines).encode(encoding)), size)
    assert list(text_lines(file)) == lines
    assert list(text_lines(io.BytesIO("".join(f"{line}\n" for line in lines).encode(encoding)))) == lines


def test_each_line_of_a_stream_is_there_as_soon_as_it_has_ended():
    source, target = os.pipe()
    with open(source, "rb") as file, open(target, "wb", buffering=0) as pipe:
        lines = text_lines(file)
        for line in ("one", "zwölf"):
            pipe.write(f"{line}\n".encode())
            assert next(lines) == line


def test_what_is_no_text_in_a_stream_is_replaced():
    assert list(text_lines(io.BytesIO(b"a\xff\n\xc3"))) == ["a\N{REPLACEMENT CHARACTER}", "\N{REPLACEMENT CHARACTER}"]
    assert list(text_lines(io.BytesIO(b""))) == []


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


def test_offline_there_is_the_bundled_text(offline, capsys):
    data = load_text("auto", None)
    assert data.name == "chitchat"
    assert "WARNING: no tiny_shakespeare, training on the bundled chitchat instead" in capsys.readouterr().err
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


def test_an_epoch_reads_each_position_at_most_once_and_almost_all():
    batches = batches_of()
    seen = np.concatenate([batches[index][0].ravel() for index in range(len(batches))])
    assert len(np.unique(seen)) == len(seen) == len(batches) * 4 * 16
    assert len(seen) > 1000 - 16 * 5


def test_epochs_differ_and_a_batch_depends_on_its_index_alone():
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
