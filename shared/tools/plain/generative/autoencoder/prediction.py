"""A reconstructed image."""

import numpy as np
from PIL import Image, ImageOps

from shared.generative.autoencoder.coding import ImageCoder
from shared.training.predictors import Picture, Pictures


def reconstructed_picture(coder: ImageCoder, image: Picture) -> Pictures:
    """An image of any size, resized and cropped to that of the autoencoder, encoded and decoded."""
    height, width, channels = coder.encoder.input_shape[1:]
    cut = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR).convert("RGB" if channels == 3 else "L")
    (found,) = coder.images(coder.latents(np.asarray(cut).reshape(1, height, width, channels)))
    return Pictures([Image.fromarray(found.squeeze())])
