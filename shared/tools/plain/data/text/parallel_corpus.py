"""Sentences in two languages."""

import gzip
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from shared.data.text.parallel_corpus import MULTI30K_SITE, SentencePairs
from shared.errors import UsageError


class ParallelText(NamedTuple):
    """Sentence pairs, split for training, for choices, and for the final measurement."""

    name: str
    train: SentencePairs
    validation: SentencePairs
    test: SentencePairs
    found: str


def load_parallel(name: str, directory: Path | None, limit: int | None = None) -> ParallelText:
    """Loads Multi30k, two files of aligned lines, SOURCE,TARGET, or one with a tab between sentence and translation."""
    if name == "auto":
        name, parts = "multi30k", [multi30k(part, directory) for part in ("train", "val", "test_2016_flickr")]
    else:
        sides = [Path(path).read_text(encoding="utf-8").strip().split("\n") for path in name.split(",")]
        pairs = list(zip(*sides, strict=True)) if len(sides) == 2 else [line.split("\t")[:2] for line in sides[0]]
        pairs = list(dict.fromkeys((pair[0].strip(), pair[1].strip()) for pair in pairs if len(pair) == 2))
        if len(pairs) < 20:
            raise UsageError(f"{name} holds {len(pairs)} different sentence pairs: at least 20 are needed")
        order = np.random.default_rng(0).permutation(len(pairs))
        chosen = np.split(order, [-2 * (len(pairs) // 20), -(len(pairs) // 20)])
        parts = [SentencePairs(*map(list, zip(*(pairs[i] for i in part), strict=True))) for part in chosen]
    train, validation, test = parts
    found = f"{len(train.sources):,} sentence pairs to train on, {len(test.sources):,} to test"
    return ParallelText(Path(name).name, train.first(limit), validation, test, found)


def multi30k(part: str, directory: Path | None) -> SentencePairs:
    """A part of Multi30k (Elliott et al. 2016, arXiv:1605.00459), downloaded once."""
    sides = []
    for file in (f"{part}.de.gz", f"{part}.en.gz"):
        path = keras.utils.get_file(file, f"{MULTI30K_SITE}/{file}", cache_dir=directory, cache_subdir="raw/multi30k")
        text = gzip.decompress(Path(path).read_bytes()).decode()
        sides.append([line.strip() for line in text.strip().split("\n")])
    return SentencePairs(*sides)
