"""Prediction of an autoencoder: a reconstructed image."""

from PIL import Image

from shared.data.images.files import fitted_pixels
from shared.generative.autoencoder.coding import ImageCoder
from shared.training.predictors import Picture, Pictures


def reconstructed_picture(coder: ImageCoder, image: Picture) -> Pictures:
    """An image of any size, resized and cropped to that of the autoencoder, encoded and decoded.

    Args:
        coder: of the trained autoencoder.
        image: to reconstruct.
    """
    pixels = fitted_pixels(image, coder.encoder.input_shape[1:])
    (found,) = coder.images(coder.latents(pixels[None]))
    return Pictures([Image.fromarray(found[..., 0] if found.shape[-1] == 1 else found)])
