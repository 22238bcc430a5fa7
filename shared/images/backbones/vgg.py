"""VGG with batch normalization (Simonyan and Zisserman 2014, arXiv:1409.1556), for small images."""

import keras
from keras import layers

from shared.images.backbones.variant import CHENYAOFO, Variant, convolved
from shared.layers.resampling import MaxPooling


def vgg(x: keras.KerasTensor, classes: int, depths: tuple[int, ...]) -> keras.KerasTensor:
    """Stages of 3×3 convolutions and max pooling, then two hidden dense layers with dropout.

    Input: (batch, height, width, channels), at least 32 pixels a side. Output: logits (batch, classes) in float32.

    Args:
        x: images.
        classes: number of classes.
        depths: number of convolutions of each of the five stages.
    """
    for filters, depth in zip((64, 128, 256, 512, 512), depths, strict=True):
        for _ in range(depth):
            x = convolved(x, filters)
        x = MaxPooling()(x)
    x = layers.Flatten()(x)
    for _ in range(2):
        x = layers.Dropout(0.5)(layers.Dense(512, "relu", kernel_initializer="he_normal")(x))
    return layers.Dense(classes, dtype="float32", name="logits")(x)


VGGS = {
    "vgg11": Variant(vgg, {"depths": (1, 1, 2, 2, 2)}, CHENYAOFO, 9.76, 153.29, 92.79, least=32),
    "vgg13": Variant(vgg, {"depths": (2, 2, 2, 2, 2)}, CHENYAOFO, 9.94, 228.79, 94.00, least=32),
    "vgg16": Variant(vgg, {"depths": (2, 2, 3, 3, 3)}, CHENYAOFO, 15.25, 313.73, 94.16, least=32),
    "vgg19": Variant(vgg, {"depths": (2, 2, 4, 4, 4)}, CHENYAOFO, 20.57, 398.66, 93.91, least=32),
}
