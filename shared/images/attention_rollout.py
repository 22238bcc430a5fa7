"""Attention rollout: how much each part of an image contributes to what a Vision Transformer looks at."""

import keras
import numpy as np

from shared.images.vision_transformer import ClassToken


def attention_rollout(model: keras.Model, images: np.ndarray, patches: str = "patches") -> np.ndarray:
    """Attention rollout (Abnar and Zuidema 2020, arXiv:2005.00928, equation 1).

    The product, over the layers, of the attention weights, to which the residual connection adds the identity. It
    follows the tokens alone, so that it is the same for every class. Layers that mix tokens give their matrix as
    `token_flow`; where nothing follows the last of them, the class is predicted from the first token where there is a
    class token, and else from the mean of all.

    Args:
        model: from images to logits, a chain of layers from `patches` on.
        images: (images, height, width, channels).
        patches: name of the layer whose output is (batch, rows, columns, channels), the tokens.

    Returns:
        (images, rows, columns), each from 0 to 1.
    """
    mixing = [layer for layer in model.layers if hasattr(layer, "token_flow")]
    _, rows, columns, _ = model.get_layer(patches).output.shape
    inputs = keras.Model(model.input, [layer.input for layer in mixing]).predict(images, verbose=0)
    flow = np.eye(rows * columns, dtype="float32")[None]
    for layer, x in zip(mixing, inputs if len(mixing) > 1 else [inputs], strict=True):
        flow = keras.ops.convert_to_numpy(layer.token_flow(keras.ops.convert_to_tensor(x))) @ flow
    classified = flow[:, 0] if any(isinstance(layer, ClassToken) for layer in mixing) else flow.mean(axis=1)
    maps = np.broadcast_to(classified, (len(images), rows * columns)).reshape(-1, rows, columns)
    least, most = (extreme(axis=(1, 2), keepdims=True) for extreme in (maps.min, maps.max))
    return (maps - least) / np.maximum(most - least, 1e-12)
