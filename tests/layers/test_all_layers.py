"""What every registered layer of shared/ owes Keras, in one table."""

import importlib
import json
import pkgutil

import keras
import numpy as np
import pytest
from conftest import gradients_of, normal, numbers

import shared
from shared.backends.compiling import compiled_inference
from shared.detection.layers import CrossStageBlock, DetectionHead, NormalizedConvolution, PyramidPooling
from shared.generative.autoencoder.latents import GaussianLatent, VectorQuantizer
from shared.generative.autoencoder.prior import CodePrior
from shared.generative.diffusion.unet import ConditionedResidualBlock, ImageAttention, TimeEmbedding
from shared.generative.modulation import ClassModulation
from shared.generative.spectral import SpectralNormalization
from shared.images.backbones.convnext import LayerScale
from shared.images.backbones.efficientnet_lite import InvertedBottleneck
from shared.images.backbones.pretrained import ImageNetPixels
from shared.images.backbones.shufflenet import ChannelShuffle, ChannelSplit
from shared.images.swin import PatchMerging, SwinBlock, WindowAttention
from shared.images.vision_transformer import ClassToken, ConvolutionalTokenizer, SequencePooling, VisionBlock
from shared.layers.attention import MultiHeadAttention
from shared.layers.convolution import Convolution, DepthwiseConvolution
from shared.layers.dense import FeedForward, SequenceDense
from shared.layers.normalization import BatchNormalization, GroupNormalization
from shared.layers.positions import LearnedPositions, SinusoidalPositions
from shared.layers.recurrent import FusedGRU, FusedLSTM
from shared.layers.resampling import DepthToSpace, MaxPooling, NearestUpsampling, SpaceToDepth
from shared.layers.residual import ConvolutionBlock, ResidualBlock
from shared.layers.stochastic_depth import StochasticDepth
from shared.segmentation.heads import PartAverages
from shared.text.seq2seq_attention import GlobalAttention
from shared.text.transformer import (
    CausalBlock,
    CausalTransformer,
    TokenEmbedding,
    TransformerDecoder,
    TransformerDecoderBlock,
    TransformerEncoder,
    TransformerEncoderBlock,
)
from shared.training.saving import read_model, save_model, with_public_classes

for found in pkgutil.walk_packages(shared.__path__, "shared."):
    if not found.name.startswith("shared.tools.plain."):  # where layers have the names of those here
        importlib.import_module(found.name)
LAYERS = {
    kind
    for kind in keras.saving.get_custom_objects().values()
    if isinstance(kind, type) and issubclass(kind, keras.layers.Layer) and kind.__module__.startswith("shared.")
}

X = normal(2, 6, 8, 5)
SEQUENCE, MEMORY = normal(3, 4, 8), normal(3, 5, 8, seed=1)
MASK = np.arange(5) < np.array([[5], [1], [3]])
IDS = np.array([[1, 0, 4], [2, 2, 3]], "int32")

CASES = {
    "batch normalization": (lambda **kw: BatchNormalization(**kw), [X]),
    "bottleneck": (lambda **kw: InvertedBottleneck(5, **kw), [X]),
    "bottleneck plain": (lambda **kw: InvertedBottleneck(4, expansion=1, **kw), [X]),
    "bottleneck strided": (lambda **kw: InvertedBottleneck(5, 5, 2, **kw), [X]),
    "causal block": (lambda **kw: CausalBlock(2, 16, 0.1, normalization="rms", **kw), [SEQUENCE]),
    "causal transformer": (
        lambda **kw: CausalTransformer(2, 4, 16, 0.1, True, 2, "rms", "swiglu", **kw),
        [SEQUENCE],
    ),
    "causal transformer, as GPT-2": (lambda **kw: CausalTransformer(2, 2, 16, activation="gelu", **kw), [SEQUENCE]),
    "channel shuffle": (lambda **kw: ChannelShuffle(**kw), [normal(2, 3, 4, 6)]),
    "channel split": (lambda **kw: ChannelSplit(**kw), [normal(2, 3, 4, 6)]),
    "class modulation": (lambda **kw: ClassModulation(5, **kw), [X, np.array([4, 1], "int32")]),
    "code prior": (lambda **kw: CodePrior(6, 8, 2, heads=2, **kw), [IDS]),
    "class token": (lambda **kw: ClassToken(**kw), [SEQUENCE]),
    "convolution": (lambda **kw: Convolution(6, 3, **kw), [X]),
    "convolution 6x6": (lambda **kw: Convolution(6, 6, use_bias=True, **kw), [X[:, :5, :7]]),
    "convolution of many channels": (lambda **kw: Convolution(16, 3, **kw), [normal(2, 7, 8, 16)]),
    "convolution strided": (lambda **kw: Convolution(6, 3, strides=2, **kw), [X[:, :, :7]]),
    "convolution block": (lambda **kw: ConvolutionBlock(6, **kw), [X]),
    "convolution block pooled": (lambda **kw: ConvolutionBlock(6, pool=True, **kw), [X[:, :5, :7]]),
    "convolutional tokenizer": (lambda **kw: ConvolutionalTokenizer((4, 6), **kw), [X]),
    "cross stage block": (lambda **kw: CrossStageBlock(8, depth=2, **kw), [X]),
    "cross stage block plain": (lambda **kw: CrossStageBlock(8, shortcut=False, **kw), [X]),
    "decoder": (lambda **kw: TransformerDecoder(2, 2, 16, 0.1, **kw), [SEQUENCE, MEMORY, MASK]),
    "decoder block": (lambda **kw: TransformerDecoderBlock(2, 16, 0.1, **kw), [SEQUENCE, MEMORY, MASK]),
    "depth to space": (lambda **kw: DepthToSpace(2, **kw), [normal(2, 2, 3, 12)]),
    "depthwise convolution": (lambda **kw: DepthwiseConvolution(3, **kw), [X]),
    "depthwise convolution with bias": (lambda **kw: DepthwiseConvolution(7, use_bias=True, **kw), [X]),
    "depthwise convolution strided": (lambda **kw: DepthwiseConvolution(5, strides=2, **kw), [X[:, :, :7]]),
    "detection head": (lambda **kw: DetectionHead(3, 8, 6, **kw), [X]),
    "detector convolution": (lambda **kw: NormalizedConvolution(6, 3, 2, **kw), [X]),
    "encoder": (lambda **kw: TransformerEncoder(2, 2, 16, 0.1, rotary=True, **kw), [MEMORY, MASK]),
    "encoder block": (lambda **kw: TransformerEncoderBlock(2, 16, 0.1, **kw), [MEMORY, MASK]),
    "feed forward": (lambda **kw: FeedForward(16, **kw), [SEQUENCE]),
    "feed forward, gated": (lambda **kw: FeedForward(16, "swiglu", **kw), [SEQUENCE]),
    "gaussian latent": (lambda **kw: GaussianLatent(2.0, **kw), [normal(3, 8), normal(3, 4, seed=1)]),
    "group normalization": (lambda **kw: GroupNormalization(5, **kw), [X]),
    "group normalization, adaptive": (
        lambda **kw: GroupNormalization(1, learned=False, **kw),
        [X, normal(2, 5), normal(2, 5, seed=1)],
    ),
    "gru": (lambda **kw: FusedGRU(3, return_sequences=True, **kw), [SEQUENCE]),
    "image attention": (lambda **kw: ImageAttention(1, 5, **kw), [X]),
    "imagenet pixels": (lambda **kw: ImageNetPixels("mobilenet_v2", **kw), [X[..., :3]]),
    "layer scale": (lambda **kw: LayerScale(0.1, **kw), [X]),
    "learned positions": (lambda **kw: LearnedPositions(5, **kw), [normal(3, 5, 8)]),
    "lstm": (lambda **kw: FusedLSTM(3, **kw), [SEQUENCE]),
    "max pooling": (lambda **kw: MaxPooling(**kw), [X[:, :5, :7]]),
    "multi-head attention": (lambda **kw: MultiHeadAttention(2, **kw), [SEQUENCE, MEMORY, MASK]),
    "multi-head attention, grouped queries": (lambda **kw: MultiHeadAttention(4, True, 2, **kw), [SEQUENCE]),
    "multi-head attention, rotary": (lambda **kw: MultiHeadAttention(2, rotary=True, **kw), [SEQUENCE]),
    "part averages": (lambda **kw: PartAverages(4, **kw), [X]),
    "patch merging": (lambda **kw: PatchMerging(6, **kw), [X[:, :5]]),
    "positions": (lambda **kw: SinusoidalPositions(**kw), [SEQUENCE]),
    "pyramid pooling": (lambda **kw: PyramidPooling(6, **kw), [X]),
    "residual block": (lambda **kw: ResidualBlock(**kw), [X]),
    "residual block, conditioned": (lambda **kw: ConditionedResidualBlock(10, 5, **kw), [X, normal(2, 3)]),
    "seq2seq attention, additive": (lambda **kw: GlobalAttention("additive", 7, **kw), [SEQUENCE, MEMORY, MASK]),
    "seq2seq attention, dot": (lambda **kw: GlobalAttention("dot", **kw), [SEQUENCE, MEMORY, MASK]),
    "seq2seq attention, general": (lambda **kw: GlobalAttention("general", **kw), [SEQUENCE, MEMORY, MASK]),
    "sequence dense": (lambda **kw: SequenceDense(7, **kw), [SEQUENCE]),
    "sequence pooling": (lambda **kw: SequencePooling(**kw), [SEQUENCE]),
    "space to depth": (lambda **kw: SpaceToDepth(2, **kw), [X]),
    "spectral normalization": (lambda **kw: SpectralNormalization(Convolution(4, 3, **kw), **kw), [X]),
    "stochastic depth": (lambda **kw: StochasticDepth(0.5, **kw), [SEQUENCE]),
    "swin block": (lambda **kw: SwinBlock(2, 16, 4, 2, dropout=0.1, **kw), [normal(2, 6, 8, 4)]),
    "time embedding": (lambda **kw: TimeEmbedding(8, **kw), [normal(3)]),
    "token embedding": (lambda **kw: TokenEmbedding(7, 4, **kw), [IDS]),
    "upsampling": (lambda **kw: NearestUpsampling(11, 16, **kw), [X]),
    "vector quantizer": (lambda **kw: VectorQuantizer(7, **kw), [X, np.abs(normal(2, 48))]),
    "vision block": (lambda **kw: VisionBlock(2, 16, 0.1, 0.2, **kw), [SEQUENCE]),
    "window attention": (lambda **kw: WindowAttention(2, 3, 1, **kw), [normal(2, 5, 4, 8)]),
}


def model_of(layer, arrays) -> keras.Model:
    """A model of a layer alone, of which only the size of the batch is open; no weight is left at 0 or 1."""
    inputs = [keras.Input(array.shape[1:], dtype=str(array.dtype)) for array in arrays]
    model = keras.Model(inputs, layer(*inputs))
    for index, weight in enumerate(model.weights):
        if weight.dtype == "float32":
            value = normal(*weight.shape, seed=index + 1)
            positive = "variance" in weight.path or "gamma" in weight.path
            weight.assign(np.abs(value) + 0.5 if positive else 0.3 * value)
    return model


def check_layer(make, arrays, directory) -> None:
    """Holds a layer to what Keras expects of each.

    Called on symbolic tensors, it gives the shapes and types of what it computes; its configuration makes the same
    layer, and a file the same outputs; gradients are finite and reach every weight; in mixed precision, it computes in
    half precision and keeps its weights in float32.

    Args:
        make: takes the keywords of every layer, and makes it.
        arrays: two examples or more of each input.
        directory: an empty one.
    """
    layer = make(name="some_name")
    copy = type(layer).from_config(layer.get_config())
    assert with_public_classes(copy.get_config()) == with_public_classes(layer.get_config())

    model = model_of(layer, arrays)
    outputs = keras.tree.flatten(compiled_inference(model, [model])(arrays))
    for symbolic, output in zip(keras.tree.flatten(model.output), outputs, strict=True):
        assert (len(output), *symbolic.shape[1:]) == tuple(output.shape)
        assert symbolic.dtype == keras.backend.standardize_dtype(output.dtype)
        assert np.isfinite(numbers(output)).all()

    save_model(model, directory / "model.keras")
    loaded = read_model(directory / "model.keras")
    program = compiled_inference(loaded, [loaded])
    for tolerance in (0, 1e-5, 1e-5):  # PyTorch records the operations that it meets again, and simplifies them
        for output, same in zip(outputs, keras.tree.flatten(program(arrays)), strict=True):
            np.testing.assert_allclose(numbers(same), numbers(output), rtol=tolerance, atol=tolerance)
    configs = [json.dumps(with_public_classes(each.get_layer("some_name").get_config())) for each in (loaded, model)]
    assert configs[0] == configs[1]

    if weights := model.trainable_weights:

        def loss():
            outputs = keras.tree.flatten(model(arrays, training=True))
            return sum(keras.ops.sum(keras.ops.multiply(x, normal(*x.shape, seed=i))) for i, x in enumerate(outputs))

        _, gradients = gradients_of(loss, weights)
        for weight, gradient in zip(weights, gradients, strict=True):
            assert np.isfinite(gradient).all(), weight.path
            if "key_value/bias" in weight.path:  # adding the same to all keys changes nothing
                gradient = gradient[len(gradient) // 2 :]
            assert np.abs(gradient).max() > 1e-6, weight.path


@pytest.mark.parametrize("name", CASES)
def test_a_layer_is_what_keras_expects(name, tmp_path):
    check_layer(*CASES[name], tmp_path)


@pytest.mark.in_turn
@pytest.mark.parametrize("name", CASES)
def test_a_layer_in_mixed_precision_computes_in_half_and_keeps_its_weights_in_float32(name):
    make, arrays = CASES[name]
    # JAX on processors cannot attend in float16.
    for precision in ("bfloat16", "float16") if keras.config.backend() == "torch" else ("bfloat16",):
        layer = make(dtype=f"mixed_{precision}")
        expected = "float32" if isinstance(layer, DetectionHead) else precision
        model = model_of(layer, arrays)
        outputs = keras.tree.flatten(compiled_inference(model, [model])(arrays))
        dtypes = {keras.backend.standardize_dtype(output.dtype) for output in outputs}
        assert dtypes == {expected}
        assert {weight.dtype for weight in model.trainable_weights} <= {"float32"}


@pytest.mark.once
def test_every_layer_is_in_the_table():
    missing = LAYERS - {type(make()) for make, _ in CASES.values()}
    assert {kind.__name__ for kind in missing} == set()
    assert len(LAYERS) > 25
