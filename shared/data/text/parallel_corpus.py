"""Parallel corpora: sentence pairs from TFDS, downloads, a bundled package or a user's files."""

import datetime
import hashlib
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shared.data.download import Download, fetch, verified
from shared.data.encoding import read_text
from shared.data.places import PassedOver, data_directory
from shared.data.text.records import RECORD_FORMATS, TextRecord, is_language, read_records_of, usable_values
from shared.errors import UsageError


class SentencePairs(NamedTuple):
    """Sentences, and the translation of each."""

    sources: list[str]
    targets: list[str]

    def first(self, count: int | None) -> "SentencePairs":
        """The first `count`; all where it is None."""
        return SentencePairs(self.sources[:count], self.targets[:count])


class ParallelText(NamedTuple):
    """Sentence pairs, split into training, validation and test parts."""

    name: str
    train: SentencePairs
    validation: SentencePairs
    test: SentencePairs
    found: str
    """One-line summary: pairs in each part, and what was passed over."""

    @property
    def fingerprint(self) -> str:
        """A short hash of all sentences."""
        digest = hashlib.sha256()
        for part in (self.train, self.validation, self.test):
            for line in (*part.sources, *part.targets):
                digest.update(line.encode() + b"\n")
        return digest.hexdigest()[:12]


MULTI30K_SITE = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw"


MULTI30K = [
    Download(
        f"{MULTI30K_SITE}/train.de.gz", 637044, "726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6"
    ),
    Download(
        f"{MULTI30K_SITE}/train.en.gz", 568929, "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f"
    ),
    Download(f"{MULTI30K_SITE}/val.de.gz", 24681, "f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a"),
    Download(f"{MULTI30K_SITE}/val.en.gz", 21650, "14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28"),
    Download(
        f"{MULTI30K_SITE}/test_2016_flickr.de.gz", 22890,
        "9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8",
    ),
    Download(
        f"{MULTI30K_SITE}/test_2016_flickr.en.gz", 21077,
        "611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9",
    ),
]  # fmt: skip
"""Elliott et al. 2016, arXiv:1605.00459: descriptions of photographs, training, validation, test_2016_flickr."""


BUNDLED_PAIRS = "cldr"
"""The bundled data set: German and English from the package babel, without download or data directory."""


TED = "ted_hrlr_translate"


HELD_OUT_SHARE = 0.05


PAIR_FIELDS = (
    ("source", "target"), ("src", "tgt"), ("src", "trg"), ("source_text", "target_text"), ("input", "output"),
    ("original", "translation"), ("sentence1", "sentence2"),
)  # fmt: skip
"""Field names of source and target, beside the names of languages."""


def load_parallel(name: str, directory: Path | None, limit: int | None = None) -> ParallelText:
    """Loads sentence pairs.

    Args:
        name: "multi30k" (German to English), "cldr", "ted_hrlr_translate/pt_to_en" or another pair of that data set
            prepared by TFDS in the data directory, two aligned text files "SOURCE,TARGET", a file of pairs (see
            `read_pairs`), or "auto": multi30k if available, else cldr with a warning.
        directory: the data directory, or None for the default.
        limit: train on the first N pairs; None for all.

    Raises:
        UsageError: the data set is not there and cannot be downloaded, or the files do not hold sentence pairs.
    """
    if name == "auto":
        try:
            return load_parallel("multi30k", directory, limit)
        except UsageError as error:
            print(f"WARNING: no multi30k, training on the bundled {BUNDLED_PAIRS} instead: {error}", file=sys.stderr)
            name = BUNDLED_PAIRS
    kind, passed_over = "", PassedOver()
    if name == "multi30k":
        parts = read_multi30k(data_directory(directory) / "raw" / name)
    elif name == BUNDLED_PAIRS:
        parts = split_pairs(name, list(cldr_pairs()), passed_over)
    elif name.partition("/")[0] == TED:
        parts = read_ted(name, data_directory(directory))
        name = name.replace("/", "_")
    elif os.path.isfile(path := os.path.expanduser(name)):
        kind, pairs = read_pairs(Path(path), passed_over)
        parts = split_pairs(name, pairs, passed_over)
        name = Path(path).name
    elif os.path.isdir(path):
        raise UsageError(f"--data {name} is a folder: name a file of pairs, or two of aligned lines, SOURCE,TARGET")
    elif "," in name:
        parts = split_pairs(name, read_aligned(*two_paths(name), passed_over), passed_over)
        name = "files"
    else:
        raise UsageError(
            f"no data set {name!r}: choose one of auto, multi30k, {BUNDLED_PAIRS}, {TED}/pt_to_en, a file of pairs "
            "(tab-separated, CSV or JSON), or two files of aligned lines, SOURCE,TARGET"
        )
    train, validation, test = parts
    used = "" if limit is None or limit >= len(train.sources) else f" (the first {limit:,} are used)"
    found = (
        f"{kind}{len(train.sources):,} sentence pairs for training{used}, {len(validation.sources):,} for validation, "
        f"{len(test.sources):,} for testing; {passed_over}"
    )
    return ParallelText(name, train=train.first(limit), validation=validation, test=test, found=found)


def read_multi30k(directory: Path) -> list[SentencePairs]:
    """Multi30k, German to English, in its own split."""
    paths = verified(fetch("multi30k", MULTI30K, directory), MULTI30K)
    sides = [text_sentences(path) for path in paths]
    return [SentencePairs(*sides[start : start + 2]) for start in (0, 2, 4)]


def text_sentences(path: Path) -> list[str]:
    """Stripped lines of a text file, which may be gzip, without trailing blank lines.

    Raises:
        UsageError: it cannot be read, is empty, or not UTF-8.
    """
    # Not splitlines, which also splits at characters that stand inside of lines.
    lines = [line.strip() for line in read_text(path).split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise UsageError(f"{path} is empty: a line a sentence is needed")
    return lines


def two_paths(name: str) -> tuple[Path, Path]:
    """The paths in "SOURCE,TARGET", split at the comma with existing files on both sides."""
    commas = [index for index, character in enumerate(name) if character == ","]
    splits = [tuple(Path(side.strip()).expanduser() for side in (name[:at], name[at + 1 :])) for at in commas]
    return max(splits, key=lambda paths: sum(map(os.path.exists, paths)))


def read_aligned(source: Path, target: Path, passed_over: PassedOver) -> list[tuple[str, str]]:
    """Pairs of two aligned files, in which line n of one translates line n of the other; they may be gzip.

    Pairs with an empty side are passed over.

    Raises:
        UsageError: a file cannot be read, is empty, is not UTF-8, or has more lines than the other.
    """
    for path in (source, target):
        if not os.path.isfile(path):
            problem = "is no file" if os.path.exists(path) else "is not there"
            raise UsageError(f"{path} {problem}: name two files of aligned lines, SOURCE,TARGET")
    sides = [text_sentences(path) for path in (source, target)]
    if len(sides[0]) != len(sides[1]):
        raise UsageError(
            f"{source} has {len(sides[0])} lines and {target} has {len(sides[1])}: line n of one must translate line n "
            "of the other"
        )
    return both_sides(list(zip(*sides, strict=True)), source, passed_over)


def both_sides(pairs: list[tuple[str, str]], path: Path, passed_over: PassedOver) -> list[tuple[str, str]]:
    """The pairs with stripped sentences; those with an empty side are passed over."""
    stripped = [tuple(" ".join(side.split()) if "\n" in side else side.strip() for side in pair) for pair in pairs]
    for number, pair in enumerate(stripped, 1):
        if any(pair) and not all(pair):
            passed_over.add("with an empty side", f"{path.name}, pair {number:,}")
    return [pair for pair in stripped if all(pair)]


def read_pairs(path: Path, passed_over: PassedOver) -> tuple[str, list[tuple[str, str]]]:
    """Format and pairs of a file: tab-separated, CSV, JSON or JSON lines, see `RECORD_FORMATS`.

    A record is a list, of which the first two are taken (in Tatoeba's with ids, what follows each id), or has the
    fields of `PAIR_FIELDS` or two named by their languages, in their order, which may lie in a field "translation".

    Raises:
        UsageError: the file is in none of these formats, or most of its records are not pairs.
    """
    file = read_records_of(path, RECORD_FORMATS, "two files of aligned lines are named as SOURCE,TARGET")
    fields = next(filter(None, (pair_fields(record.value) for record in file.records)), None)
    pairs = usable_values(file, path, pair_reader(fields, file.records), passed_over)
    kind = f"{file.format}, {' to '.join(fields)}" if fields else file.format
    return f"{kind}: ", both_sides(pairs, path, passed_over)


def pair_fields(value: Any) -> tuple[str, str] | None:
    """Field names of source and target in a record; None if it has none."""
    value = translation_in(value)
    if not isinstance(value, dict):
        return None
    names = {name.lower(): name for name, text in value.items() if isinstance(text, str)}
    for pair in PAIR_FIELDS:
        if set(pair) <= names.keys():
            return names[pair[0]], names[pair[1]]
    languages = [original for name, original in names.items() if any(map(is_language, re.findall(r"[^\W_]+", name)))]
    for chosen in (languages, list(names.values())):
        if len(chosen) == 2:
            return chosen[0], chosen[1]
    return None


def translation_in(value: Any) -> Any:
    """The object in the field "translation" of a record; the record where there is none."""
    inner = value.get("translation") if isinstance(value, dict) else None
    return inner if isinstance(inner, dict) else value


def pair_reader(fields: tuple[str, str] | None, records: list[TextRecord]) -> Callable[[Any], tuple[str, str]]:
    """Function from a record to its source and target.

    Args:
        fields: field names of source and target in objects.
        records: the records of the file; lists may have other columns before the source.
    """
    rows = [record.value for record in records if isinstance(record.value, list) and len(record.value) > 1]
    columns = sentence_columns([row for row in rows if all(isinstance(cell, str) for cell in row)])

    def pair_of(value: Any) -> tuple[str, str]:
        value = translation_in(value)
        if isinstance(value, dict):
            if fields is None:
                raise ValueError(f"which of the fields {', '.join(value)} are source and target? name them so")
            pair = value[fields[0]], value[fields[1]]
        elif isinstance(value, list) and len(value) > columns[1]:
            pair = value[columns[0]], value[columns[1]]
        else:
            raise TypeError("expected a sentence and its translation")
        if not all(isinstance(side, str) for side in pair):
            raise TypeError("a sentence and its translation must be strings")
        return pair

    return pair_of


def sentence_columns(rows: list[list[str]]) -> tuple[int, int]:
    """Columns of sentence and translation: the first two, unless ids precede both or rows are numbered."""

    def all_numbers(column: int) -> bool:
        return all(len(row) > column and row[column].isdecimal() for row in rows)

    if rows and all(len(row) > 3 for row in rows) and all_numbers(0) and all_numbers(2):
        return 1, 3
    numbered = len(rows) > 2 and all(len(row) > 2 for row in rows) and all_numbers(0)
    if numbered and all(int(after[0]) == int(row[0]) + 1 for row, after in itertools.pairwise(rows)):
        return 1, 2
    return 0, 1


def split_pairs(name: str, pairs: list[tuple[str, str]], passed_over: PassedOver) -> list[SentencePairs]:
    """Random split with a fixed seed; pairs with equal source or target are in the same part, repeated ones once.

    So no test sentence occurs in training, on either side.

    Returns:
        Training, validation and test pairs.

    Raises:
        UsageError: there are too few different pairs.
    """
    known: dict[tuple[str, str], None] = {}
    for pair in pairs:
        if pair in known:
            passed_over.add("repeated", " / ".join(pair)[:80])
        known[pair] = None
    pairs = list(known)
    parents: dict[tuple[int, str], tuple[int, str]] = {}

    def root(sentence):
        while (parent := parents.setdefault(sentence, sentence)) != sentence:
            parents[sentence] = parents[parent]
            sentence = parent
        return sentence

    for source, target in pairs:
        parents[root((0, source))] = root((1, target))
    groups: dict[tuple[int, str], list[tuple[str, str]]] = {}
    for pair in pairs:
        groups.setdefault(root((0, pair[0])), []).append(pair)
    found = list(groups.values())
    if len(found) < 3:
        raise UsageError(
            f"{name}: {len(found)} different sentence pairs cannot be split in three parts: give more lines"
        )
    order = np.random.default_rng(0).permutation(len(found))
    held_out = max(1, round(len(order) * HELD_OUT_SHARE))
    parts = []
    for chosen in (order[2 * held_out :], order[:held_out], order[held_out : 2 * held_out]):
        members = [pair for index in chosen for pair in found[index]]
        parts.append(SentencePairs(*map(list, zip(*members, strict=True))))
    return parts


def read_ted(name: str, directory: Path) -> list[SentencePairs]:
    """A pair of languages of ted_hrlr_translate, prepared by TFDS as array_record, read without TensorFlow.

    Raises:
        UsageError: it is not there, or damaged.
    """
    import tensorflow_datasets as tfds

    folder = directory / "tfds" / Path(name)
    versions = sorted(folder.glob("[0-9]*"))
    if not versions:
        prepared = [f"{TED}/{path.name}" for path in sorted(folder.parent.glob("*_to_*"))] or ["none"]
        raise UsageError(f"no {name} in {directory / 'tfds'} (there: {', '.join(prepared)}): prepare it with TFDS")
    languages = Path(name).name.split("_to_")
    try:
        parts = []
        for split in ("train", "validation", "test"):
            # builder_from_directory would import TensorFlow.
            source = tfds.data_source(
                f"{name}:{versions[-1].name}", split=split, data_dir=directory / "tfds", download=False
            )
            examples = [tuple(example[language].decode().strip() for language in languages) for example in source]
            parts.append(SentencePairs(*map(list, zip(*(pair for pair in examples if all(pair)), strict=True))))
        return parts
    except Exception as error:  # noqa: BLE001 - array_record and TFDS each raise their own for a damaged file
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"{versions[-1]} cannot be read as sentences in two languages ({reason})") from None


def cldr_pairs(seed: int = 0) -> Iterator[tuple[str, str]]:
    """German and English dates, times, numbers, amounts, countries and languages.

    From the Unicode Common Locale Data Repository (https://cldr.unicode.org), in the package babel.
    """
    from babel import Locale
    from babel.dates import format_date, format_time
    from babel.numbers import format_currency, format_decimal, format_percent
    from babel.units import format_unit

    rng = np.random.default_rng(seed)
    locales = Locale("de"), Locale("en")

    def both(function, value, *arguments, **options):
        return tuple(
            function(value, *arguments, locale=locale, **options).replace("\xa0", " ").replace("\u202f", " ")
            for locale in locales
        )

    for table in ("territories", "languages"):
        german, english = (getattr(locale, table) for locale in locales)
        yield from ((german[code], english[code]) for code in sorted(german.keys() & english.keys()))
    for _ in range(2500):
        date = datetime.date(1900, 1, 1) + datetime.timedelta(days=int(rng.integers(0, 73000)))
        yield both(format_date, date, format=str(rng.choice(["full", "long", "medium"])))
    for _ in range(400):
        minutes = int(rng.integers(0, 24 * 60))
        yield both(format_time, datetime.time(minutes // 60, minutes % 60), format="short")
    for _ in range(1500):
        number = round(float(10 ** rng.uniform(0, 7)), int(rng.integers(0, 3)))
        yield both(format_decimal, number) if rng.random() < 0.8 else both(format_percent, number / 1e4)
    currencies = sorted(set(locales[0].currencies) & {"EUR", "USD", "GBP", "JPY", "CHF", "SEK", "PLN", "INR", "BRL"})
    for _ in range(1500):
        amount = round(float(10 ** rng.uniform(0, 5)), 2)
        yield both(format_currency, amount, str(rng.choice(currencies)), format_type="name")
    units = "length-kilometer", "mass-kilogram", "duration-hour", "volume-liter", "temperature-celsius", "speed-knot"
    for _ in range(1500):
        yield both(format_unit, round(float(10 ** rng.uniform(0, 3)), int(rng.integers(0, 2))), str(rng.choice(units)))
