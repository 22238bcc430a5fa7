"""Fingerprints of files: they change whenever what is read from the files does, and only then."""

import os
import shutil

import pytest

from shared.data.places import PassedOver, fingerprint_of, left_by_system
from shared.errors import UsageError

pytestmark = pytest.mark.once


@pytest.fixture
def folder(tmp_path):
    for name in ("cat/1.bmp", "dog/1.bmp"):
        (tmp_path / "a" / name).parent.mkdir(parents=True)
        (tmp_path / "a" / name).write_bytes(name.encode())
    return tmp_path / "a"


def of(folder, *facts):
    return fingerprint_of([path for path in folder.rglob("*") if path.is_file()], folder, *facts)


def test_a_copied_moved_or_touched_folder_keeps_its_fingerprint(folder):
    before = of(folder, 32)
    copy = shutil.copytree(folder, folder.with_name("b"))
    os.utime(copy / "cat/1.bmp", (0, 0))
    assert of(copy, 32) == before == fingerprint_of(sorted(copy.rglob("*.bmp"), reverse=True), copy, 32)
    assert of(copy, 64) != before


@pytest.mark.parametrize("change", ["contents", "class", "swap"])
def test_other_contents_or_paths_have_another_fingerprint_whatever_sizes_and_times_say(folder, change):
    before, times = of(folder), (folder / "cat/1.bmp").stat().st_mtime_ns
    match change:
        case "contents":
            (folder / "cat/1.bmp").write_bytes(b"CAT/1.bmp")
            os.utime(folder / "cat/1.bmp", ns=(times, times))
        case "class":
            (folder / "cat").rename(folder / "cow")
        case "swap":
            (folder / "cat").rename(folder / "x")
            (folder / "dog").rename(folder / "cat")
            (folder / "x").rename(folder / "dog")
    assert of(folder) != before


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"gone\.png cannot be read"):
        fingerprint_of([tmp_path / "gone.png"], tmp_path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/._1.jpg", True), ("__MACOSX/a/1.jpg", True), (".ipynb_checkpoints/1.jpg", True), ("a/Thumbs.db", True),
        ("a/1.jpg", False), ("../a/1.jpg", False), ("a.b/1.jpg", False),
    ],
)  # fmt: skip
def test_system_files_are_distinguished_from_user_files(tmp_path, path, expected):
    assert left_by_system(type(tmp_path)(path)) is expected


def test_what_was_passed_over_is_said_in_one_line():
    passed_over = PassedOver()
    assert str(passed_over) == "nothing passed over"
    passed_over.add("of type .heic", "a/1.heic")
    passed_over.add("of type .heic", "a/2.heic")
    passed_over.add("damaged", "b.png")
    assert str(passed_over) == "passed over 3: 2 of type .heic (a/1.heic, …); 1 damaged (b.png)"
