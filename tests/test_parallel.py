"""Sentence pairs: where they come from, how they are split, and what is said of files that do not fit."""

import gzip

import pytest
from conftest import directory_with

from shared.data.parallel import SentencePairs, cldr_pairs, load_parallel, split_pairs
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
    return sorted(pair for part in text[1:] for pair in zip(*part, strict=True))


def assert_nothing_is_shared(text):
    for side in range(2):
        train, validation, test = (set(part[side]) for part in text[1:])
        assert not train & validation
        assert not train & test
        assert not validation & test


def test_multi30k(multi30k):
    text = load_parallel("multi30k", multi30k)
    assert [len(part.sources) for part in text[1:]] == [29000, 1014, 1000]
    assert text.test.targets[0] == "A man in an orange hat starring at something."
    assert text.train.sources[0].startswith("Zwei junge weiße Männer")
    assert all(len(part.sources) == len(part.targets) for part in text[1:])
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
    assert "WARNING: no multi30k, training on the embedded cldr instead" in capsys.readouterr().err


def test_the_embedded_pairs():
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
    assert [len(part.sources) for part in text[1:]] == [90, 5, 5]
    assert load_parallel(written(sources, targets, "gz"), None)[1:] == text[1:]
    assert load_parallel(written("\ufeff" + sources.replace("\n", "\r\n"), targets), None)[1:] == text[1:]
    holes = load_parallel(written("\n" + sources + "\n", "Nothing.\n" + targets + "\n"), None)
    assert everything(holes) == sorted(lines)


def test_what_is_alike_on_one_side_is_in_one_part():
    pairs = [(f"s{n % 60}", f"t{n % 90}") for n in range(180)] + [(f"x{n}", f"y{n}") for n in range(50)] * 2
    text = split_pairs("some", pairs)
    assert everything(text) == sorted(set(pairs))
    assert_nothing_is_shared(text)
    assert text == split_pairs("some", pairs)


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
    with pytest.raises(UsageError, match=r"nowhere\.txt cannot be read \(No such file"):
        load_parallel(f"{tmp_path}/nowhere.txt,{tmp_path}/target.txt", None)
    data = written("a\nb\n", "x\ny\n", "gz")
    (tmp_path / "source.gz").write_bytes(b"no gzip")
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
