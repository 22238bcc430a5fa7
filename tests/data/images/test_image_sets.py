"""Data: augmentation, batches, decoding, the cache, downloads."""

import functools
import gzip
import hashlib
import http.server
import io
import itertools
import os
import tarfile
import threading
import urllib.request

import ml_dtypes
import numpy as np
import pytest
from conftest import PROJECT, refused_in_one_line

from shared.data.arrays import cached_arrays, write_arrays
from shared.data.download import Download, fetch, verified
from shared.data.images import datasets as image_sets
from shared.data.images.datasets import LabelledImages, load_images
from shared.data.randomness import RANDOM_PURPOSES, random_stream
from shared.errors import UsageError
from shared.files import cache_directory
from shared.images.augment import cutmix, mirror_index, mixup, random_crop, random_cutout, random_flip
from shared.images.batches import ImageBatches
from shared.images.mixed_batches import MixedImageBatches
from shared.training.batches import SeededBatches

pytestmark = pytest.mark.once


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_RECIPES_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pictures(count=64, size=8):
    return np.random.default_rng(1).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_flip_mirrors_about_half_and_leaves_the_rest():
    before = pictures(400)
    after = random_flip(before, np.random.default_rng(0))
    same = (after == before).all(axis=(1, 2, 3))
    mirrored = (after == before[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert 150 < mirrored.sum() < 250
    assert after.dtype == np.uint8


def test_crop_is_a_window_of_the_mirrored_image():
    before = pictures(50)
    after = random_crop(before, 2, np.random.default_rng(0))
    padded = np.pad(before, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
    places = set()
    for index in range(len(before)):
        found = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if np.array_equal(after[index], padded[index, y : y + 8, x : x + 8])
        ]
        assert len(found) == 1
        places.add(found[0])
    assert len(places) > 15


def test_mirror_index():
    np.testing.assert_array_equal(mirror_index(np.arange(-2, 6), 4), [2, 1, 0, 1, 2, 3, 2, 1])


def test_cutout_covers_a_square_with_the_fill():
    before = np.full((200, 8, 8, 3), 200, np.uint8)
    after = random_cutout(before, 4, [1, 2, 3], np.random.default_rng(0))
    covered = (after != before).any(axis=-1)
    assert (after[covered] == [1, 2, 3]).all()
    assert covered.sum(axis=(1, 2)).max() == 16
    assert covered.sum(axis=(1, 2)).min() >= 4
    assert covered.any(axis=0).all()


def plain_pictures(count):
    """Pictures of one brightness each, their number, and targets that tell them apart."""
    brightness = np.arange(count, dtype=np.uint8) * 10
    return np.broadcast_to(brightness[:, None, None, None], (count, 8, 6, 3)).copy(), np.eye(count, dtype="float32")


def test_mixup_mixes_targets_as_it_mixes_images():
    images, targets = plain_pictures(20)
    mixed, soft = mixup(images, targets, 0.5, np.random.default_rng(0))
    assert (mixed.dtype, soft.dtype, mixed.shape) == (np.uint8, np.float32, images.shape)
    np.testing.assert_allclose(soft.sum(axis=1), 1, rtol=1e-6)
    assert ((soft > 0).sum(axis=1) <= 2).all()
    np.testing.assert_allclose(
        mixed, np.broadcast_to((soft @ images[:, 0, 0, 0])[:, None, None, None], mixed.shape), atol=0.51
    )
    assert len(np.unique(soft.max(axis=1))) > 10, "a weight for each image"


def test_cutmix_mixes_targets_by_the_area():
    images, targets = plain_pictures(20)
    mixed, soft = cutmix(images, targets, 1.0, np.random.default_rng(0))
    assert (mixed.dtype, soft.dtype, mixed.shape) == (np.uint8, np.float32, images.shape)
    np.testing.assert_allclose(soft.sum(axis=1), 1, rtol=1e-6)
    for index, (image, weights) in enumerate(zip(mixed, soft, strict=True)):
        own = image[..., 0] == 10 * index
        if own.all():
            continue
        assert weights[index] == pytest.approx(own.mean(), abs=1e-6)
        (other,) = np.unique(image[~own]) // 10
        assert weights[other] == pytest.approx(1 - own.mean(), abs=1e-6)
        rows, columns = (~own).any(axis=1), (~own).any(axis=0)
        assert ((~own) == rows[:, None] & columns).all(), "a rectangle"
    assert 0.2 < np.mean(mixed != images) < 0.6


def make_batches(seed=0, **keywords):
    data = LabelledImages(pictures(70), np.arange(70) % 10)
    return MixedImageBatches(data, 10, 16, seed, flip=True, crop=2, cutout=3, **keywords)


@pytest.mark.parametrize("mix", [{}, {"mixup": 0.4}, {"cutmix": 1.0}], ids=str)
def test_a_batch_depends_on_seed_epoch_and_index_alone(mix):
    one, other = make_batches(**mix), make_batches(**mix)
    one.epoch = other.epoch = 3
    [one[i] for i in range(3)]
    other.first = 2
    for a, b in zip(one[2], other[0], strict=True):
        np.testing.assert_array_equal(a, b)
    other.epoch = 4
    assert not np.array_equal(one[2][0], other[0][0])
    reseeded = make_batches(seed=1, **mix)
    reseeded.epoch = 3
    assert not np.array_equal(one[2][0], reseeded[2][0])


class Drawn(SeededBatches):
    """What the order of the examples and what a batch is drawn from."""

    def make_batch(self, index, rng):
        return self.shuffled(100, self.epoch), rng.permutation(100)


def test_the_order_and_the_batches_are_independent():
    batches, drawn = Drawn(0), []
    for batches.epoch in range(3):
        drawn += [batches[0][0], *(batches[index][1] for index in range(3))]
    assert len({tuple(each) for each in drawn}) == len(drawn)


def test_random_streams_of_purposes_and_positions_differ():
    places = [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0)]
    streams = list(itertools.product((0, 1, 2**32 - 1), RANDOM_PURPOSES, places))
    first = {int(random_stream(seed, purpose, *place).integers(2**63)) for seed, purpose, place in streams}
    assert len(first) == len(streams)
    with pytest.raises(ValueError, match="index"):
        random_stream(0, "weather")


def test_an_epoch_shows_each_image_at_most_once():
    data = LabelledImages(np.arange(70, dtype=np.uint8)[:, None, None, None], np.arange(70))
    batches = ImageBatches(data, 70, 16, 0)
    assert len(batches) == 4
    shown = np.concatenate([batches[i][0].ravel() for i in range(4)])
    assert len(set(shown.tolist())) == 64
    labels = np.concatenate([batches[i][1].argmax(axis=1) for i in range(4)])
    np.testing.assert_array_equal(shown, labels)


def test_cache_decodes_once(tmp_path):
    calls = []

    def make():
        calls.append(1)
        return {"numbers": np.arange(5)}, {"answer": 42}

    for _ in range(2):
        arrays, facts = cached_arrays(tmp_path / "set", make)
        np.testing.assert_array_equal(arrays["numbers"], np.arange(5))
        assert facts == {"answer": 42}
    assert len(calls) == 1
    assert isinstance(arrays["numbers"], np.memmap)


@pytest.mark.parametrize("damage", ["flip a byte", "cut short", "no file", "no manifest", "empty manifest"])
def test_a_damaged_cache_is_refused_in_one_line_and_left_alone(tmp_path, damage):
    directory = tmp_path / "set"
    cached_arrays(directory, lambda: ({"numbers": np.arange(100)}, {}))
    path = directory / ("manifest.json" if "manifest" in damage else "numbers.npy")
    content = path.read_bytes()
    if damage.startswith("no"):
        path.unlink()
    else:
        path.write_bytes(
            {"flip a byte": content[:-3] + b"\x07" + content[-2:], "cut short": content[:-9]}.get(damage, b"")
        )
    files = sorted(directory.iterdir())
    with pytest.raises(UsageError, match="delete that folder") as caught:
        cached_arrays(directory, lambda: pytest.fail("must not decode again"))
    assert "\n" not in str(caught.value)
    assert sorted(directory.iterdir()) == files


def test_a_failure_while_decoding_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(np, "save", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with refused_in_one_line("(No space left on device): make room there, or set KERAS_RECIPES_CACHE"):
        cached_arrays(tmp_path / "set", lambda: ({"numbers": np.arange(5)}, {}))
    assert list(tmp_path.iterdir()) == []


def test_of_two_processes_that_fill_a_cache_both_succeed(tmp_path, monkeypatch):
    rename = os.rename

    def after_the_other(source, target):
        monkeypatch.setattr(os, "rename", rename)
        write_arrays(tmp_path / "set", {"numbers": np.arange(5)}, {})
        rename(source, target)

    monkeypatch.setattr(os, "rename", after_the_other)
    arrays, _ = cached_arrays(tmp_path / "set", lambda: ({"numbers": np.arange(5)}, {}))
    np.testing.assert_array_equal(arrays["numbers"], np.arange(5))
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_cache_that_cannot_be_made_is_refused_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("KERAS_RECIPES_CACHE", str(tmp_path / "file" / "cache"))
    with refused_in_one_line("set KERAS_RECIPES_CACHE to another directory"):
        load_images("mnist5k", None, "cifar10", validation=0.25)
    with refused_in_one_line("set KERAS_RECIPES_CACHE to another directory"):
        cached_arrays(cache_directory() / "features" / "a", lambda: pytest.fail("must not be computed"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "object"])
def test_a_type_that_files_do_not_keep_is_refused(tmp_path, dtype):
    """NumPy itself writes bfloat16 as bytes without a meaning."""
    array = np.zeros(3, getattr(ml_dtypes, dtype, object))
    with pytest.raises((TypeError, ValueError)):
        cached_arrays(tmp_path / "set", lambda: ({"numbers": array}, {}))
    assert list(tmp_path.iterdir()) == []
    halves, _ = cached_arrays(tmp_path / "set", lambda: ({"numbers": np.zeros(3, "float16")}, {}))
    assert halves["numbers"].dtype == np.float16


def test_bundled_digits(cache):
    data = load_images("mnist5k", None, "cifar10", validation=0.25)
    assert data.train.images.shape == (3000, 28, 28, 1)
    assert len(data.validation.labels) == len(data.test.labels) == 1000
    assert np.bincount(data.test.labels).tolist() == [100] * 10
    assert data.classes == list("0123456789")
    assert not data.mirrored
    everything = np.concatenate([data.train.images, data.validation.images])
    assert data.mean == pytest.approx([everything.mean()])
    assert data.deviation == pytest.approx([everything.std()])
    assert len(load_images("mnist5k", None, "cifar10", validation=0.25, limit=77).train.labels) == 77


def test_splits_do_not_overlap_and_do_not_change(cache):
    one, other = (load_images("mnist5k", None, "cifar10", validation=0.1) for _ in range(2))
    np.testing.assert_array_equal(one.validation.images, other.validation.images)
    rows = [{image.tobytes() for image in part.images} for part in (one.train, one.validation, one.test)]
    assert not rows[0] & rows[1]
    assert not rows[0] & rows[2]


def test_auto_without_data_says_so_and_takes_the_bundled_set(cache, offline, capsys):
    assert load_images("auto", None, "cifar10", validation=0.1).name == "mnist5k"
    message = capsys.readouterr().err
    assert "WARNING: no cifar10" in message
    assert "170.1 MB from https://www.cs.toronto.edu" in message


def test_named_but_missing_is_an_error(cache, offline):
    with pytest.raises(UsageError, match=r"cannot be downloaded.*--data-dir"):
        load_images("cifar10", None, "cifar10", validation=0.1)
    with pytest.raises(UsageError, match="choose one of auto, cifar10, fashion_mnist, mnist5k"):
        load_images("nonsense", None, "cifar10", validation=0.1)
    assert not offline.exists() or not list(offline.rglob("*.gz"))


def test_real_cifar10_reads_as_tfds_does_and_imports_no_other_backend(cache, real_data, run_python, capsys):
    import tensorflow_datasets as tfds

    code = (
        "import sys; from shared.data.images.datasets import load_images;"
        "[load_images('cifar10', None, 'cifar10', 0.1) for _ in range(2)];"
        "print({'tensorflow', 'torch'} & set(sys.modules))"
    )
    process = run_python("-c", code, check=0, KERAS_BACKEND="jax", PYTHONPATH=str(PROJECT))
    assert process.stdout.splitlines()[-1] == "set()"
    assert process.stderr.count("once") == 2  # of each split: the second time, they are read from the cache
    data = load_images("cifar10", real_data, "cifar10", validation=0.1)
    assert "once" not in capsys.readouterr().err
    source = tfds.data_source("cifar10", split="test", data_dir=real_data / "tfds", download=False)
    for index in (0, 17, 9999):
        np.testing.assert_array_equal(data.test.images[index], source[index]["image"])
        assert data.test.labels[index] == source[index]["label"]
    assert data.classes[data.test.labels[0]] == source.dataset_info.features["label"].int2str(source[0]["label"])
    assert data.train.images.shape == (45000, 32, 32, 3)
    assert data.mirrored


def test_of_a_set_without_a_test_split_a_fifth_of_each_class_is_held_out(cache, flowers):
    data = load_images("tf_flowers", flowers, "cifar10", validation=0.1, size=16)
    found = [np.bincount(part.labels) for part in (data.test, data.train, data.validation)]
    assert (len(data.classes), data.test.images.shape[1:]) == (5, (16, 16, 3))
    np.testing.assert_allclose(found[0] / np.sum(found, axis=0), 0.2, atol=0.005)
    rows = [{image.tobytes() for image in part.images} for part in (data.train, data.test)]
    assert len(rows[0] & rows[1]) < 5, "photographs in both, beyond those that are twice in the set"


def test_a_set_that_is_not_labelled_images_of_one_size(cache, real_data):
    with pytest.raises(UsageError) as caught:
        load_images("tiny_shakespeare", real_data, "cifar10", validation=0.1)
    assert "\n" not in str(caught.value)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server on this machine; yields its address and the folder that it serves."""
    monkeypatch.setattr(urllib.request, "_opener", urllib.request.build_opener(urllib.request.ProxyHandler({})))
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", folder
        running.shutdown()


def serve(server, name, content):
    (server[1] / name).write_bytes(content)
    return Download(f"{server[0]}/{name}", len(content), hashlib.sha256(content).hexdigest())


def test_download_is_announced_checked_and_kept(server, tmp_path, capsys):
    download = serve(server, "file.bin", b"x" * 3_000_000)
    paths = fetch("thing", [download], tmp_path / "raw")
    assert paths[0].read_bytes() == b"x" * 3_000_000
    assert "downloading thing: 3.0 MB from http://127.0.0.1" in capsys.readouterr().err
    (server[1] / "file.bin").unlink()
    assert fetch("thing", [download], tmp_path / "raw") == paths
    paths[0].write_bytes(b"other")
    with pytest.raises(UsageError, match="is damaged: delete it"):
        verified(paths, [download])


def test_download_of_another_file_leaves_nothing(server, tmp_path):
    download = serve(server, "file.bin", b"right")
    serve(server, "file.bin", b"wrong")
    with pytest.raises(UsageError, match="did not send the file"):
        fetch("thing", [download], tmp_path / "raw")
    assert list((tmp_path / "raw").iterdir()) == []


def test_download_from_a_server_without_the_file(server, tmp_path):
    with pytest.raises(UsageError, match="cannot be downloaded"):
        fetch("thing", [Download(f"{server[0]}/none.bin", 5, "0")], tmp_path / "raw")


def test_cifar10_from_its_own_archive(server, cache, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (60, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, 60, dtype=np.uint8)
    records = np.concatenate([labels[:, None], pixels.transpose(0, 3, 1, 2).reshape(60, -1)], axis=1)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for i, name in enumerate([*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]):
            content = records[i * 10 : i * 10 + 10].tobytes()
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    download = serve(server, "cifar-10-binary.tar.gz", packed.getvalue())
    monkeypatch.setitem(image_sets.DOWNLOADS, "cifar10", [download])
    data = load_images("cifar10", tmp_path / "data", "cifar10", validation=0)
    np.testing.assert_array_equal(data.test.images, pixels[50:])
    np.testing.assert_array_equal(data.test.labels, labels[50:])
    assert {image.tobytes() for image in data.train.images} == {image.tobytes() for image in pixels[:50]}


def test_fashion_mnist_from_its_own_files(server, cache, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    downloads = []
    for split, count in (("train", 20), ("t10k", 10)):
        pixels, labels = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8), rng.integers(0, 10, count, np.uint8)
        for kind, header, content in (("images-idx3", 16, pixels), ("labels-idx1", 8, labels)):
            packed = gzip.compress(bytes(header) + content.tobytes())
            downloads.append(serve(server, f"{split}-{kind}-ubyte.gz", packed))
    monkeypatch.setitem(image_sets.DOWNLOADS, "fashion_mnist", downloads)
    data = load_images("fashion_mnist", tmp_path / "data", "cifar10", validation=0)
    np.testing.assert_array_equal(data.test.images[..., 0], pixels)
    np.testing.assert_array_equal(data.test.labels, labels)
    assert data.classes[-1] == "Ankle boot"
