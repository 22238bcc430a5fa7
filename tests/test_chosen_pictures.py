"""Image files that a user names for a trained model."""

import pytest
from PIL import Image

from shared.data.chosen_pictures import ChosenPictures
from shared.errors import UsageError

pytestmark = pytest.mark.once


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a.jpg", "deep/c.gif", "._a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 3)).save(tmp_path / name, format="PNG")
    (tmp_path / "torn.png").write_bytes(b"torn")
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_a_folder_stands_for_its_image_files(folder, capsys):
    chosen = ChosenPictures([folder, folder / "b.png"])
    assert [path.name for path, _ in chosen] == ["a.jpg", "b.png", "c.gif", "b.png"]
    assert f"skipped: {folder / 'torn.png'} cannot be read as an image" in capsys.readouterr().err
    with pytest.raises(UsageError, match=r"torn\.png cannot be read as an image \(.*\): 4 of 5 files were answered"):
        chosen.raise_if_bad()


def test_all_are_answered(folder):
    chosen = ChosenPictures([folder / "b.png"])
    assert [picture.size for _, picture in chosen] == [(4, 3)]
    chosen.raise_if_bad()


@pytest.mark.parametrize("name", ["gone.png", "notes.txt", "torn.png"])
def test_none_can_be_read(folder, name):
    chosen = ChosenPictures([folder / name, folder / "torn.png"])
    assert list(chosen) == []
    with pytest.raises(UsageError, match="and 1 more files: 0 of 2 files were answered"):
        chosen.raise_if_bad()


def test_a_folder_without_image_files(tmp_path):
    with pytest.raises(UsageError, match="holds no image files"):
        ChosenPictures([tmp_path])
