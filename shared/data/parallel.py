"""Sentences in two languages, each the translation of the other: from TFDS, downloaded, in files, or embedded."""

import datetime
import gzip
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shared.data.download import Download, fetch, verified
from shared.data.encoding import decoded_text
from shared.data.places import data_directory
from shared.errors import UsageError


class SentencePairs(NamedTuple):
    """Sentences, and the translation of each."""

    sources: list[str]
    targets: list[str]

    def first(self, count: int | None) -> "SentencePairs":
        """The first `count`; all where it is None."""
        return SentencePairs(self.sources[:count], self.targets[:count])


class ParallelText(NamedTuple):
    """Sentence pairs, split for training, for choices, and for the one final measurement."""

    name: str
    train: SentencePairs
    validation: SentencePairs
    test: SentencePairs

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

EMBEDDED_PAIRS = "cldr"
"""The set that needs neither download nor data directory: German and English from the package babel."""

TED = "ted_hrlr_translate"
HELD_OUT_SHARE = 0.05


def load_parallel(name: str, directory: Path | None, limit: int | None = None) -> ParallelText:
    """Loads sentence pairs.

    Args:
        name: "multi30k" (German to English), "cldr", "ted_hrlr_translate/pt_to_en" or another pair of that set which
            TFDS has prepared in the data directory, two aligned text files "SOURCE,TARGET", or "auto": multi30k where
            it can be had, else cldr, which is then said on stderr.
        directory: the data directory, or None for the usual one.
        limit: use only so many pairs for training; None for all.

    Raises:
        UsageError: the set is not there and cannot be fetched, or files do not hold as many lines each.
    """
    if name == "auto":
        try:
            return load_parallel("multi30k", directory, limit)
        except UsageError as error:
            print(f"WARNING: no multi30k, training on the embedded {EMBEDDED_PAIRS} instead: {error}", file=sys.stderr)
            name = EMBEDDED_PAIRS
    if name == "multi30k":
        text = read_multi30k(data_directory(directory) / "raw" / name)
    elif name == EMBEDDED_PAIRS:
        text = split_pairs(name, list(cldr_pairs()))
    elif name.partition("/")[0] == TED:
        text = read_ted(name, data_directory(directory))
    elif "," in name:
        text = split_pairs("files", read_aligned(*map(Path, name.split(",", 1))))
    else:
        raise UsageError(
            f"no data set {name!r}: choose one of auto, multi30k, {EMBEDDED_PAIRS}, {TED}/pt_to_en, or two files of "
            "aligned lines, SOURCE,TARGET"
        )
    return text._replace(train=text.train.first(limit))


def read_multi30k(directory: Path) -> ParallelText:
    """Multi30k, German to English, in its own split."""
    paths = verified(fetch("multi30k", MULTI30K, directory), MULTI30K)
    sides = [decoded_lines(gzip.decompress(path.read_bytes()), path) for path in paths]
    parts = [SentencePairs(*sides[start : start + 2]) for start in (0, 2, 4)]
    return ParallelText("multi30k", *parts)


def decoded_lines(content: bytes, path: Path) -> list[str]:
    """The lines of a text in UTF-8, without blanks around them."""
    text = decoded_text(content, path)
    # Not splitlines, which also splits at characters that stand inside of lines.
    return [line.strip() for line in text.removesuffix("\n").split("\n")] if text.strip() else []


def read_aligned(source: Path, target: Path) -> list[tuple[str, str]]:
    """The pairs of two files of which line n of one translates line n of the other; .gz is unpacked.

    Pairs of which one side is empty are left out.

    Raises:
        UsageError: a file cannot be read, is empty, is not UTF-8, or has more lines than the other.
    """
    sides = []
    for path in (source, target):
        try:
            content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        except (OSError, EOFError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(f"{path} cannot be read ({reason}): name two files, SOURCE,TARGET") from None
        sides.append(decoded_lines(content, path))
        if not sides[-1]:
            raise UsageError(f"{path} is empty: a line a sentence is needed")
    if len(sides[0]) != len(sides[1]):
        raise UsageError(
            f"{source} has {len(sides[0])} lines and {target} has {len(sides[1])}: line n of one must translate line n "
            "of the other"
        )
    return [pair for pair in zip(*sides, strict=True) if all(pair)]


def split_pairs(name: str, pairs: list[tuple[str, str]]) -> ParallelText:
    """Draws the parts of a set once and for all: what is the same in source or target is all in one part.

    So nothing of the test was seen in training, on neither side.

    Raises:
        UsageError: too few pairs differ.
    """
    pairs = list(dict.fromkeys(pairs))
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
        raise UsageError(f"{len(found)} different sentence pairs cannot be split in three parts: give more lines")
    order = np.random.default_rng(0).permutation(len(found))
    held_out = max(1, round(len(order) * HELD_OUT_SHARE))
    parts = []
    for chosen in (order[2 * held_out :], order[:held_out], order[held_out : 2 * held_out]):
        members = [pair for index in chosen for pair in found[index]]
        parts.append(SentencePairs(*map(list, zip(*members, strict=True))))
    return ParallelText(name, *parts)


def read_ted(name: str, directory: Path) -> ParallelText:
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
        return ParallelText(name.replace("/", "_"), *parts)
    except Exception as error:  # noqa: BLE001 - array_record and TFDS each raise their own for a damaged file
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"{versions[-1]} cannot be read as sentences in two languages ({reason})") from None


def cldr_pairs(seed: int = 0) -> Iterator[tuple[str, str]]:
    """German and English for the same dates, times, numbers, amounts, countries and languages.

    As the Unicode Common Locale Data Repository writes them (https://cldr.unicode.org), in the package babel.
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
