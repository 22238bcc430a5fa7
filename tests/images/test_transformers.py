"""Vision Transformers against PyTorch and KerasHub, and attention rollout by what each token depends on."""

import keras
import numpy as np
import pytest
from conftest import normal, numbers
from keras import layers, ops

from shared.images.attention_rollout import attention_rollout
from shared.images.swin import PatchMerging, SwinBlock, WindowAttention
from shared.images.vision_transformer import ClassToken, ConvolutionalTokenizer, SequencePooling, VisionBlock
from shared.layers.dense import SequenceDense
from shared.layers.positions import LearnedPositions
from shared.layers.resampling import SpaceToDepth
from shared.layers.stochastic_depth import StochasticDepth

ON_TORCH = pytest.mark.only_on("torch")


def randomized(layer, shape):
    """A built layer with a value of its own for every weight."""
    layer.build((None, *shape[1:]))
    for index, weight in enumerate(layer.weights):
        if weight.dtype == "float32":
            weight.assign(0.3 * normal(*weight.shape, seed=index + 1) + ("gamma" in weight.path))
    return layer


@ON_TORCH
def test_a_block_is_an_encoder_layer_of_pytorch():
    torch = pytest.importorskip("torch")
    x = normal(3, 5, 8)
    block = randomized(VisionBlock(2, 12), x.shape)
    theirs = torch.nn.TransformerEncoderLayer(8, 2, 12, 0.0, "gelu", batch_first=True, norm_first=True).eval()
    query, query_bias, both, both_bias, output, output_bias = map(torch.tensor, block.attention.get_weights())
    expand, expand_bias, contract, contract_bias = map(torch.tensor, block.feed_forward.get_weights())
    theirs.load_state_dict(
        {
            "self_attn.in_proj_weight": torch.cat([query, both], dim=1).T,
            "self_attn.in_proj_bias": torch.cat([query_bias, both_bias]),
            "self_attn.out_proj.weight": output.T,
            "self_attn.out_proj.bias": output_bias,
            "linear1.weight": expand.T,
            "linear1.bias": expand_bias,
            "linear2.weight": contract.T,
            "linear2.bias": contract_bias,
            "norm1.weight": torch.tensor(numbers(block.attention_norm.gamma)),
            "norm1.bias": torch.tensor(numbers(block.attention_norm.beta)),
            "norm2.weight": torch.tensor(numbers(block.feed_forward_norm.gamma)),
            "norm2.bias": torch.tensor(numbers(block.feed_forward_norm.beta)),
        }
    )
    with torch.no_grad():
        expected = theirs(torch.tensor(x)).numpy()
        normed = theirs.norm1(torch.tensor(x))
        _, weights = theirs.self_attn(normed, normed, normed)  # the mean over heads
    np.testing.assert_allclose(numbers(block(x)), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        numbers(block.token_flow(ops.convert_to_tensor(x))), (weights.numpy() + np.eye(5)) / 2, rtol=1e-5, atol=1e-6
    )


@ON_TORCH
def test_vit_is_that_of_keras_hub():
    hub = pytest.importorskip("keras_hub")
    theirs = hub.models.ViTBackbone((8, 8, 3), 4, 2, 2, 8, 12, layer_norm_epsilon=1e-5)
    inputs = keras.Input((8, 8, 3))
    x = layers.Reshape((-1, 8))(SequenceDense(8)(SpaceToDepth(4)(inputs)))
    x = LearnedPositions(5)(ClassToken()(x))
    for _ in range(2):
        x = VisionBlock(2, 12)(x)
    ours = keras.Model(inputs, layers.LayerNormalization(epsilon=1e-5)(x))
    assert ours.count_params() == theirs.count_params()
    for index, weight in enumerate(theirs.weights):
        weight.assign(0.3 * normal(*weight.shape, seed=index + 1) + ("gamma" in weight.path))

    def arrays(part):
        return [numbers(weight) for weight in part.trainable_weights]

    embedding, encoder = theirs.layers[1:3]
    dense, token, positions, *blocks, norm = [layer for layer in ours.layers if layer.weights]
    kernel, bias = arrays(embedding.patch_embedding)
    dense.set_weights([kernel.reshape(48, 8), bias])
    token.set_weights([numbers(embedding.class_token)])
    positions.set_weights(arrays(embedding.position_embedding))
    for block, other in zip(blocks, encoder.encoder_layers, strict=True):
        block.attention_norm.set_weights(arrays(other.layer_norm_1))
        block.feed_forward_norm.set_weights(arrays(other.layer_norm_2))
        block.feed_forward.set_weights([*arrays(other.mlp.dense_1), *arrays(other.mlp.dense_2)])
        query, query_bias, key, key_bias, value, value_bias, output, output_bias = arrays(other.mha)
        both = np.concatenate([key.reshape(8, 8), value.reshape(8, 8)], axis=1)
        both_bias = np.concatenate([key_bias.ravel(), value_bias.ravel()])
        block.attention.set_weights(
            [query.reshape(8, 8), query_bias.ravel(), both, both_bias, output.reshape(8, 8), output_bias]
        )
    norm.set_weights(arrays(encoder.layer_norm))
    x = normal(2, 8, 8, 3)
    np.testing.assert_allclose(numbers(ours(x)), numbers(theirs(x)), rtol=1e-4, atol=1e-5)


@ON_TORCH
def test_swin_is_that_of_keras_hub():
    hub = pytest.importorskip("keras_hub")
    theirs = hub.models.SwinTransformerBackbone((16, 16, 3), 8, (2, 2), (2, 4), 4, patch_size=2, mlp_ratio=2.0)
    inputs = keras.Input((16, 16, 3))
    x = layers.LayerNormalization(epsilon=1e-5)(SequenceDense(8)(SpaceToDepth(2)(inputs)))
    x = SwinBlock(2, 16, 4, 2)(SwinBlock(2, 16, 4)(x))
    x = SwinBlock(4, 32, 4, 2)(SwinBlock(4, 32, 4)(PatchMerging(16)(x)))
    ours = keras.Model(inputs, layers.LayerNormalization(epsilon=1e-5)(x))
    assert ours.count_params() == theirs.count_params()
    for index, weight in enumerate(theirs.trainable_weights):
        weight.assign(0.3 * normal(*weight.shape, seed=index + 1) + ("gamma" in weight.path))

    def copy_block(block, other):
        width = other.dim
        qkv, qkv_bias = other.attn.qkv.get_weights()
        block.attention.attention.set_weights(
            [qkv[:, :width], qkv_bias[:width], qkv[:, width:], qkv_bias[width:], *other.attn.proj.get_weights()]
        )
        block.attention.position_bias.assign(other.attn.relative_position_bias_table)
        block.feed_forward.set_weights([*other.mlp.fc1.get_weights(), *other.mlp.fc2.get_weights()])
        block.attention_norm.set_weights(other.norm1.get_weights())
        block.feed_forward_norm.set_weights(other.norm2.get_weights())

    dense, first_norm, *blocks, norm = [layer for layer in ours.layers if layer.weights]
    first, second = theirs.stages
    kernel, bias = theirs.patch_embedding.proj.get_weights()
    dense.set_weights([kernel.reshape(12, 8), bias])
    first_norm.set_weights(theirs.patch_embedding.norm.get_weights())
    merging = blocks.pop(2)
    for block, other in zip(blocks, [*first.blocks, *second.blocks], strict=True):
        copy_block(block, other)
    gamma, beta = (each.reshape(4, 8)[[0, 2, 1, 3]].ravel() for each in first.downsample.norm.get_weights())
    (reduction,) = first.downsample.reduction.get_weights()
    merging.norm.set_weights([gamma, beta])
    merging.reduction.set_weights([reduction.reshape(4, 8, 16)[[0, 2, 1, 3]].reshape(32, 16)])  # theirs goes down first
    norm.set_weights(theirs.norm.get_weights())
    x = normal(2, 16, 16, 3)
    found, expected = numbers(ours(x)), numbers(theirs(x))
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-4, atol=2e-5)


@ON_TORCH
@pytest.mark.parametrize(
    ("height", "width", "shift"), [(8, 8, 0), (8, 8, 2), (6, 9, 0), (6, 9, 2), (8, 4, 1), (4, 4, 2), (3, 2, 2)]
)
def test_windows_are_attention_of_pytorch_with_a_mask(height, width, shift):
    """Attention of all tokens, with a mask between the windows."""
    torch = pytest.importorskip("torch")
    x = normal(2, height, width, 8)
    layer = randomized(WindowAttention(2, 4, shift), x.shape)
    side = min(4, max(height, width))
    shift = shift if side < max(height, width) else 0
    rows, columns = np.divmod(np.arange(height * width), width)
    window = np.stack([(rows - shift) // side, (columns - shift) // side])
    same = (window[:, :, None] == window[:, None]).all(axis=0)
    down, right = (each[:, None] - each for each in (rows, columns))
    table = numbers(layer.position_bias).reshape(2 * side - 1, 2 * side - 1, 2)
    bias = table[(down + side - 1).clip(0, 2 * side - 2), (right + side - 1).clip(0, 2 * side - 2)]
    mask = torch.tensor(np.where(same, bias.transpose(2, 0, 1), -np.inf)[None])

    query, query_bias, both, both_bias, output, output_bias = map(torch.tensor, layer.attention.get_weights())
    tokens = torch.tensor(x.reshape(2, -1, 8))
    keys, values = (tokens @ both + both_bias).split(8, dim=-1)
    heads = [each.unflatten(-1, (2, 4)).transpose(1, 2) for each in (tokens @ query + query_bias, keys, values)]
    found = torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=mask)
    expected = (found.transpose(1, 2).flatten(2) @ output + output_bias).numpy().reshape(x.shape)
    np.testing.assert_allclose(numbers(layer(x)), expected, rtol=1e-4, atol=1e-5)

    weights = (heads[0] @ heads[1].transpose(2, 3) / 2 + mask).softmax(dim=-1).mean(dim=1)
    np.testing.assert_allclose(layer.token_weights(ops.convert_to_tensor(x)), weights.numpy(), rtol=1e-4, atol=1e-6)


def test_the_tokenizer_is_convolutions_relu_and_pooling_of_keras():
    x = normal(2, 9, 8, 3)
    layer = randomized(ConvolutionalTokenizer((4, 6)), x.shape)
    expected = ops.convert_to_tensor(x)
    for kernel in layer.get_weights():
        expected = ops.relu(ops.conv(expected, kernel, padding="same"))
        expected = ops.max_pool(expected, 2, 2, padding="valid")
    np.testing.assert_allclose(numbers(layer(x)), numbers(expected), rtol=1e-4, atol=1e-5)


def test_sequence_pooling_by_hand():
    x = normal(2, 5, 4)
    layer = randomized(SequencePooling(), x.shape)
    (kernel,) = layer.get_weights()
    scores = np.exp(x @ kernel)
    expected = (scores / scores.sum(axis=1, keepdims=True) * x).sum(axis=1)
    np.testing.assert_allclose(numbers(layer(x)), expected, rtol=1e-5, atol=1e-6)


def test_stochastic_depth_drops_whole_branches_in_training_alone():
    layer = StochasticDepth(0.25, seed=3)
    x = ops.ones((2000, 3, 2))
    for training in (None, False):
        np.testing.assert_array_equal(numbers(layer(x, training=training)), numbers(x))
    first, second, again = (
        numbers(each(x, training=True)) for each in (layer, layer, StochasticDepth.from_config(layer.get_config()))
    )
    np.testing.assert_array_equal(first, again)
    assert (first != second).any()
    np.testing.assert_array_equal(first, np.broadcast_to(first[:, :1, :1], first.shape))
    assert set(np.unique(first)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((first[:, 0, 0] == 0).mean() - 0.25) < 0.04
    np.testing.assert_array_equal(numbers(StochasticDepth(0.0)(x, training=True)), numbers(x))


MIXING = {
    "class token": (ClassToken, (1, 4, 6)),
    "block": (lambda: VisionBlock(2, 8), (1, 4, 6)),
    "windows": (lambda: SwinBlock(2, 8, 2), (1, 4, 4, 6)),
    "shifted windows": (lambda: SwinBlock(2, 8, 2, 1), (1, 4, 3, 6)),
    "padded windows": (lambda: SwinBlock(2, 8, 3, 1), (1, 5, 4, 6)),
    "merging": (lambda: PatchMerging(4), (1, 4, 3, 6)),
    "pooling": (SequencePooling, (1, 4, 6)),
}


@ON_TORCH
@pytest.mark.parametrize("name", MIXING)
def test_tokens_depend_on_those_that_flow_into_them(name):
    make, shape = MIXING[name]
    layer, x = randomized(make(), shape), normal(*shape)
    flow = np.asarray(numbers(layer.token_flow(ops.convert_to_tensor(x))))[0]
    tokens = int(np.prod(shape[1:-1]))
    assert flow.shape[1] == tokens
    changed = []
    for token in range(tokens):
        other = x.copy().reshape(tokens, 6)
        other[token] += normal(6, seed=9)
        difference = numbers(layer(other.reshape(shape))) - numbers(layer(x))
        changed.append(np.abs(difference.reshape(len(flow), -1)).max(axis=1) > 1e-6)
    np.testing.assert_array_equal(np.stack(changed, axis=1), flow > 0)
    sums = np.ones(len(flow)) - (np.arange(len(flow)) == 0) * (name == "class token")
    np.testing.assert_allclose(flow.sum(axis=1), sums, rtol=1e-5)


def rollout_model(kind):
    """A network with images of 8×8 pixels, by the last layer before its logits."""
    inputs = keras.Input((8, 8, 1))
    x = SequenceDense(8, name="patches")(SpaceToDepth(2)(inputs))
    if kind == "swin":
        x = PatchMerging(8)(SwinBlock(2, 8, 2, 1)(SwinBlock(2, 8, 2)(x)))
        x = layers.GlobalAveragePooling2D()(x)
    else:
        x = layers.Reshape((-1, 8))(x)
        x = VisionBlock(2, 8)(VisionBlock(2, 8)(ClassToken()(x) if kind == "vit" else x))
        x = x[:, 0] if kind == "vit" else SequencePooling()(x)
    return keras.Model(inputs, layers.Dense(3)(x))


@pytest.mark.in_turn
@pytest.mark.parametrize("kind", ["vit", "swin", "cct"])
def test_rollout_is_the_product_of_the_layers(kind):
    model, images = rollout_model(kind), normal(2, 8, 8, 1)
    for index, weight in enumerate(model.weights):
        if weight.dtype == "float32":
            weight.assign(0.5 * normal(*weight.shape, seed=index + 1))
    found = attention_rollout(model, images)
    assert found.shape == (2, 4, 4)
    assert found.min() == 0
    assert found.max() == pytest.approx(1)

    x, flow = ops.convert_to_tensor(images), np.eye(16)
    for layer in model.layers[1:]:
        if hasattr(layer, "token_flow"):
            flow = numbers(layer.token_flow(x)) @ flow
        x = x[:, 0] if "item" in layer.name else layer(x)
    rows = flow[:, 0] if kind == "vit" else flow.mean(axis=1)
    rows = rows - rows.min(axis=1, keepdims=True)
    np.testing.assert_allclose(found.reshape(2, 16), rows / rows.max(axis=1, keepdims=True), rtol=1e-3, atol=1e-4)
