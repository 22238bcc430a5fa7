"""Sentence pairs: where they come from, how they are split, and what is said of files that do not fit."""

import csv
import gzip
import io
import json
import os

import pytest
from conftest import directory_with, refused_in_one_line

from shared.data.places import PassedOver
from shared.data.text.parallel_corpus import ParallelText, SentencePairs, cldr_pairs, load_parallel, split_pairs
from shared.errors import UsageError

pytestmark = pytest.mark.once


@pytest.fixture
def multi30k():
    """The data directory with Multi30k; the test is skipped without it."""
    return directory_with("raw/multi30k")


@pytest.fixture
def written(tmp_path):
    """Writes two files and returns the --data that names them."""

    def write(source, target, suffix="txt"):
        for name, content in (("source", source), ("target", target)):
            content = content if isinstance(content, bytes) else content.encode()
            path = tmp_path / f"{name}.{suffix}"
            path.write_bytes(gzip.compress(content) if suffix == "gz" else content)
        return f"{tmp_path}/source.{suffix},{tmp_path}/target.{suffix}"

    return write


def everything(text):
    return sorted(pair for part in text[1:4] for pair in zip(*part, strict=True))


def assert_nothing_is_shared(text):
    for side in range(2):
        train, validation, test = (set(part[side]) for part in text[1:4])
        assert not train & validation
        assert not train & test
        assert not validation & test


def test_multi30k(multi30k):
    text = load_parallel("multi30k", multi30k)
    assert [len(part.sources) for part in text[1:4]] == [29000, 1014, 1000]
    assert text.test.targets[0] == "A man in an orange hat starring at something."
    assert text.train.sources[0].startswith("Zwei junge weiße Männer")
    assert all(len(part.sources) == len(part.targets) for part in text[1:4])
    fewer = load_parallel("auto", multi30k, limit=10)
    assert fewer.name == "multi30k"
    assert fewer.train == text.train.first(10)
    assert fewer.test == text.test
    assert fewer.fingerprint != text.fingerprint == load_parallel("multi30k", multi30k).fingerprint


def test_damaged_multi30k(multi30k, tmp_path):
    folder = tmp_path / "raw/multi30k"
    folder.mkdir(parents=True)
    for path in (multi30k / "raw/multi30k").glob("*.gz"):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "val.en.gz").write_bytes(b"broken")
    with pytest.raises(UsageError, match=r"val\.en\.gz is damaged: delete it and run again"):
        load_parallel("multi30k", tmp_path)


def test_without_network(offline, capsys):
    with pytest.raises(UsageError, match="multi30k is not in the data directory and cannot be downloaded"):
        load_parallel("multi30k", None)
    text = load_parallel("auto", None)
    assert text.name == "cldr"
    assert "WARNING: no multi30k, training on the bundled cldr instead" in capsys.readouterr().err


def test_the_bundled_pairs():
    text = load_parallel("cldr", None)
    assert len(text.train.sources) > 6000
    assert min(len(text.validation.sources), len(text.test.sources)) > 300
    assert_nothing_is_shared(text)
    pairs = dict(cldr_pairs())
    assert pairs["Österreich"] == "Austria"
    assert pairs["Ungarisch"] == "Hungarian"
    kinds = "".join(pairs)
    for sign in ("%", "Euro", "Kilometer", "Montag", ":"):
        assert sign in kinds
    assert list(cldr_pairs()) == list(cldr_pairs())
    assert text == load_parallel("cldr", None)


def test_two_files(written):
    lines = [(f"Satz {n} ist kurz.", f"Sentence {n} is short.") for n in range(100)]
    sources, targets = ("\n".join(side) + "\n" for side in zip(*lines, strict=True))
    text = load_parallel(written(sources, targets), None)
    assert text.name == "files"
    assert everything(text) == sorted(lines)
    assert [len(part.sources) for part in text[1:4]] == [90, 5, 5]
    assert load_parallel(written(sources, targets, "gz"), None)[1:4] == text[1:4]
    assert load_parallel(written("\ufeff" + sources.replace("\n", "\r\n"), targets), None)[1:4] == text[1:4]
    holes = load_parallel(written("\n" + sources + "\n", "Nothing.\n" + targets + "\n"), None)
    assert everything(holes) == sorted(lines)


PAIRS = [(f'He said: "{n}, please", and left;', f"Er sagte: „{n}, bitte“ und ging;") for n in range(60)]


def in_lines(row, pairs=PAIRS):
    return "".join(row(*pair) + "\n" for pair in pairs)


def in_csv(separator, header, rows):
    text = io.StringIO()
    csv.writer(text, delimiter=separator).writerows([*header, *rows])
    return text.getvalue()


FILES_OF_PAIRS = {
    "as Anki has it": ("tab-separated values", in_lines(lambda s, t: f"{s}\t{t}\tCC-BY 2.0 (France) #1 (me) & #2")),
    "as Tatoeba has it": (
        "tab-separated values", "".join(f"{7 * n}\t{s}\t{9 * n}\t{t}\n" for n, (s, t) in enumerate(PAIRS)),
    ),
    "numbered": ("tab-separated values", "".join(f"{n}\t{s}\t{t}\n" for n, (s, t) in enumerate(PAIRS, 1))),
    "header": (
        "tab-separated values with a header, english to deutsch",
        "ID\tEnglish\tDeutsch\n" + in_lines("9\t{}\t{}".format),
    ),
    "ends of lines": ("tab-separated values", in_lines("{}\t{}".format).replace("\n", "\r") + "\r\r"),
    "all quoted": ("tab-separated values", in_lines(lambda s, t: f'"{s.replace(chr(34), 2 * chr(34))}"\t"{t}"')),
    "bars": ("columns with ||| between", in_lines("{} ||| {}".format)),
    "csv": (
        "CSV with a header, source to target",
        in_csv(",", [("target", "id", "source")], [(t, 1, s) for s, t in PAIRS]),
    ),
    "csv without a header": ("CSV", in_csv(",", [], PAIRS)),
    "semicolons": ("CSV with a header, en_us to de-de", in_csv(";", [("en_US", "de-DE")], PAIRS)),
    "lines in cells": ("CSV", in_csv(",", [], [(s.replace(" and", "\nand"), t) for s, t in PAIRS])),
    "translation": (
        "JSON lines, en to de",
        in_lines(lambda s, t: json.dumps({"id": 5, "translation": {"en": s, "de": t}})),
    ),
    "fields": ("JSON lines, src to tgt", in_lines(lambda s, t: json.dumps({"tgt": t, "note": "", "src": s}))),
    "other order": (
        "JSON lines, en to de",
        in_lines(lambda s, t: json.dumps({"en": s, "de": t} if "1" in s else {"de": t, "en": s}), PAIRS[1:])
        + json.dumps({"en": PAIRS[0][0], "de": PAIRS[0][1]}),
    ),
    "lists": ("JSON lines", in_lines(lambda s, t: json.dumps([s, t], ensure_ascii=False))),
    "array": ("JSON", json.dumps(PAIRS, indent=1)),
    "array in an object": (
        "JSON, english to german",
        json.dumps({"version": 1, "tags": ["a"], "data": [{"english": s, "german": t} for s, t in PAIRS]}),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES_OF_PAIRS)
def test_a_file_of_pairs_is_known_by_what_is_in_it(tmp_path, kind):
    form, content = FILES_OF_PAIRS[kind]
    path = tmp_path / "my pairs, all.TXT"
    path.write_bytes(content.encode("utf-16"))
    text = load_parallel(str(path), None)
    assert everything(text) == sorted(PAIRS)
    assert text.name == path.name
    assert text.found == f"{form}: 54 sentence pairs for training, 3 for validation, 3 for testing; nothing passed over"


def test_what_is_passed_over_and_what_is_used_is_said(tmp_path):
    path = tmp_path / "pairs.txt"
    path.write_text(in_lines("{}\t{}".format) + "a note\n" + in_lines("{}\t".format, PAIRS[:2]) + "\t".join(PAIRS[0]))
    assert load_parallel(str(path), None, limit=10).found == (
        "tab-separated values: 54 sentence pairs for training (the first 10 are used), 3 for validation, "
        f"3 for testing; passed over 4: 1 that cannot be read (pairs.txt, line 61); "
        f"2 with an empty side (pairs.txt, pair 61, …); 1 repeated ({' / '.join(PAIRS[0])[:80]})"
    )


@pytest.mark.parametrize("names", ["my, data/a.en,my, data/a.de", "a.en, a.de", "ä b.en,ä b.de", "~/a.en,~/a.de"])
def test_paths_may_hold_commas_and_blanks(tmp_path, monkeypatch, names):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my, data").mkdir()
    for folder in (tmp_path, tmp_path / "my, data"):
        for stem in ("a", "ä b"):
            for side, language in enumerate(("en", "de")):
                lines = [pair[side] for pair in PAIRS]
                (folder / f"{stem}.{language}").write_text("\n".join(lines) + "\n" * (1 + 3 * side), encoding="utf-8")
    assert everything(load_parallel(names, None)) == sorted(PAIRS)


BAD_FILES_OF_PAIRS = {
    "empty": (b"", "is empty"),
    "blank": (b" \n\n\t\n", "is empty"),
    "one column": (b"one\ntwo\n", "is in none of the known formats (JSON, JSON lines, columns with ||| between"),
    "two of a kind": (b"a\tb\nc\td\n", "2 different sentence pairs cannot be split in three parts"),
    "unknown fields": (
        b'{"x": "a", "y": "b", "z": "c"}\n' * 9,
        "read as JSON lines: 9 of 9 records cannot be used, the first of them in line 1: which of the fields x, y, z",
    ),
    "numbers": (b"[1, 2]\n" * 9, "in line 1: a sentence and its translation must be strings"),
    "torn": (b'[{"en": "a", "de": "b"},\n {"en": "c"', "holds no records in JSON: line 2, column 12"),
    "torn lines": (b'{"en": "a", "de": "b"}\n{"en": \n' * 9, "9 of 18 records cannot be used, the first of them in"),
    "a field less": (b'{"en": "a", "de": "b"}\n{"en": "a"}\n', "in line 2: there is no field 'de'"),
    "open quotation marks": (
        b'"a","b"\n"c,"d"\n' * 9,
        "read as CSV: 9 of 18 records cannot be used, the first of them in line 2: ",
    ),
    "zip": (b"PK\x03\x04\x14\x00", "is a zip archive or an office document, not a text file: unpack it"),
    "gzip": (gzip.compress(b"a\tb\n" * 999)[:-20], "cannot be read (Compressed file ended"),
    "gzip inside": (gzip.compress(os.urandom(999))[:40] + bytes(99) + b"a", "cannot be read ("),
    "nulls": (bytes(5000), "line 1: a null byte"),
    "deep": (b'{"a":' * 50_000, "is nested too deeply"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_FILES_OF_PAIRS)
def test_a_file_that_holds_no_pairs_is_refused_in_one_line(tmp_path, kind):
    content, message = BAD_FILES_OF_PAIRS[kind]
    path = tmp_path / "pairs"
    path.write_bytes(content)
    with refused_in_one_line(message):
        load_parallel(str(path), None)


def test_folders_and_what_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a, b").mkdir()
    (tmp_path / "a.en").write_text("one\n")
    for name, message in (
        ("a, b", "--data a, b is a folder: name a file of pairs"),
        ("a.en,a, b", "a, b is no file: name two files"),
        ("a.en,no, thing", "no, thing is not there: name two files"),
        ("x" * 5000 + ",a.en", "is not there: name two files"),
        ("x" * 5000, "no data set"),
    ):
        with refused_in_one_line(message):
            load_parallel(name, None)


@pytest.mark.parametrize("data", ["pairs.txt", "a.en,a.de"])
def test_other_contents_of_the_same_size_are_other_data(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    found = []
    for word in ("red", "sad"):
        (tmp_path / "pairs.txt").write_text(in_lines(f"{{}}\t{{}} {word}".format), encoding="utf-8")
        (tmp_path / "a.en").write_text(in_lines(lambda s, t: s), encoding="utf-8")
        (tmp_path / "a.de").write_text(in_lines(lambda s, t, word=word: f"{t} {word}"), encoding="utf-8")
        for path in tmp_path.iterdir():
            os.utime(path, (0, 0))
        found.append(load_parallel(data, None))
    assert all(target.endswith(" sad") for _, target in everything(found[1]))
    assert found[0].fingerprint != found[1].fingerprint


def test_what_is_alike_on_one_side_is_in_one_part():
    pairs = [(f"s{n % 60}", f"t{n % 90}") for n in range(180)] + [(f"x{n}", f"y{n}") for n in range(50)] * 2
    passed_over = PassedOver()
    text = ParallelText("some", *split_pairs("some", pairs, passed_over), "")
    assert str(passed_over) == "passed over 50: 50 repeated (x0 / y0, …)"
    assert everything(text) == sorted(set(pairs))
    assert_nothing_is_shared(text)
    assert list(text[1:4]) == split_pairs("some", pairs, passed_over)


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("a\nb\nc\n", "x\ny\n", "source.txt has 3 lines and .*target.txt has 2: line n of one must translate line n"),
        ("", "x\n", "source.txt is empty"),
        ("a\n", "  \n\n", "target.txt is empty"),
        ("ein Satz", "one sentence", "1 different sentence pairs cannot be split in three parts: give more lines"),
        ("a\na\na\n", "x\ny\nz\n", "1 different sentence pairs"),
        ("Bär\nLöwe".encode("latin-1"), "bear\nlion", r"source.txt, line 1: byte 0xe4 is not UTF-8"),
        ("a\nb\n".encode("utf-16-le"), "x\ny\n", r"source.txt, line 1: a null byte"),
    ],
)
def test_files_that_do_not_fit(written, source, target, message):
    with pytest.raises(UsageError, match=message) as caught:
        load_parallel(written(source, target), None)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(written, tmp_path):
    with pytest.raises(UsageError, match=r"nowhere\.txt is not there: name two files"):
        load_parallel(f"{tmp_path}/nowhere.txt,{tmp_path}/target.txt", None)
    data = written("a\nb\n", "x\ny\n", "gz")
    (tmp_path / "source.gz").write_bytes(b"\x1f\x8bno gzip")
    with pytest.raises(UsageError, match=r"source\.gz cannot be read"):
        load_parallel(data, None)
    with pytest.raises(UsageError, match="no data set 'wmt14': choose one of auto, multi30k, cldr"):
        load_parallel("wmt14", None)


def test_ted(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"no ted_hrlr_translate/pt_to_en in .* \(there: none\): prepare it with TFDS"):
        load_parallel("ted_hrlr_translate/pt_to_en", tmp_path)
    pytest.importorskip("tensorflow")  # which TFDS needs to prepare a set, though not to read it
    prepare_ted(tmp_path)
    text = load_parallel("ted_hrlr_translate/pt_to_en", tmp_path)
    assert text.name == "ted_hrlr_translate_pt_to_en"
    assert text.train == SentencePairs(["olá 0", "olá 1", "olá 2"], ["hello 0", "hello 1", "hello 2"])
    assert text.test == SentencePairs(["olá 9"], ["hello 9"])
    with pytest.raises(UsageError, match=r"no ted_hrlr_translate/ru_to_en .* \(there: ted_hrlr_translate/pt_to_en\)"):
        load_parallel("ted_hrlr_translate/ru_to_en", tmp_path)
    for path in tmp_path.rglob("*train*"):
        path.write_bytes(b"broken")
    with pytest.raises(UsageError, match="cannot be read as sentences in two languages"):
        load_parallel("ted_hrlr_translate/pt_to_en", tmp_path)


def prepare_ted(directory):
    """Writes a small set in the form in which TFDS prepares ted_hrlr_translate."""
    import tensorflow_datasets as tfds

    def example(n):
        return n, {"en": f"hello {n}", "pt": f"olá {n}"}

    tfds.dataset_builders.store_as_tfds_dataset(
        name="ted_hrlr_translate",
        config="pt_to_en",
        version="1.0.0",
        data_dir=directory / "tfds",
        features=tfds.features.Translation(["en", "pt"]),
        split_datasets={
            "train": [example(0), example(1), (5, {"en": "", "pt": "vazio"}), example(2)],
            "validation": [example(8)],
            "test": [example(9)],
        },
        file_format="array_record",
    )
