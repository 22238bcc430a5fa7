"""Image files that a user names for a trained model."""

import pytest
from PIL import Image

from shared.data.images.chosen_files import chosen_pictures, refuse_unread
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
    pictures, unread = chosen_pictures([folder, folder / "b.png"])
    assert [path.name for path in pictures] == ["a.jpg", "b.png", "c.gif"]
    assert [picture.size for picture in pictures.values()] == [(4, 3)] * 3
    assert f"skipped: {folder / 'torn.png'} cannot be read as an image" in capsys.readouterr().err
    with pytest.raises(UsageError, match=r"torn\.png cannot be read as an image \(.*\)$"):
        refuse_unread(unread)


def test_all_are_answered(folder):
    pictures, unread = chosen_pictures([folder / "b.png"])
    assert list(pictures) == [folder / "b.png"]
    refuse_unread(unread)


@pytest.mark.parametrize("name", ["gone.png", "notes.txt", "torn.png"])
def test_none_can_be_read(folder, name):
    with pytest.raises(UsageError, match=rf"{name} cannot be read as an image \(.*\), nor can 1 more files$"):
        chosen_pictures([folder / name, folder / "torn.png"])


def test_a_folder_without_image_files(tmp_path):
    with pytest.raises(UsageError, match="holds no image files"):
        chosen_pictures([tmp_path])
