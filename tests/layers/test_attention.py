"""Attention, positions and the Transformer's blocks, against PyTorch, KerasHub and themselves token by token."""

import keras
import numpy as np
import pytest
from conftest import numbers
from keras import ops

from shared.backends.attention import cached_attention, dot_product_attention, with_entry
from shared.layers.attention import MultiHeadAttention
from shared.layers.dense import FeedForward
from shared.layers.positions import LearnedPositions, SinusoidalPositions, apply_rotary_embedding
from shared.text.transformer import (
    CausalBlock,
    CausalTransformer,
    TokenEmbedding,
    TransformerDecoder,
    TransformerDecoderBlock,
    TransformerEncoder,
)
from shared.training.saving import with_public_classes


def random(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def randomize(layer):
    """Gives every weight a value of its own, so that none can hide behind its initial 0 or 1."""
    for index, weight in enumerate(layer.weights):
        if weight.dtype == "float32":
            weight.assign(random(weight.shape, seed=index + 1) * 0.3 + (1 if "gamma" in weight.path else 0))
    return layer


def reference_attention(queries, keys, values, key_mask=None, causal=False):
    """Equation 1, in NumPy, (batch, length, heads, depth)."""
    scores = np.einsum("bnhd,bmhd->bhnm", queries, keys) / np.sqrt(queries.shape[-1])
    if key_mask is not None:
        scores = np.where(key_mask[:, None, None, :], scores, -np.inf)
    if causal:
        scores = np.where(np.tril(np.ones(scores.shape[2:], bool)), scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("bhnm,bmhd->bnhd", weights, values), weights


MASK = np.array([[True] * 5, [True] * 3 + [False] * 2, [True] + [False] * 4])


@pytest.mark.parametrize(("masked", "causal"), [(False, False), (True, False), (False, True), (True, True)])
def test_dot_product_attention(masked, causal):
    queries, keys, values = (random((3, 5, 2, 4), seed) for seed in range(3))
    mask = MASK if masked else None
    tensors = [ops.convert_to_tensor(each) for each in (queries, keys, values)]
    found = numbers(dot_product_attention(*tensors, mask, causal))
    np.testing.assert_allclose(found, reference_attention(queries, keys, values, mask, causal)[0], rtol=1e-5, atol=1e-6)

    torch = pytest.importorskip("torch")
    heads_first = [torch.tensor(each).transpose(1, 2) for each in (queries, keys, values)]
    allowed = torch.ones((5, 5), dtype=torch.bool).tril() if causal else torch.ones((5, 5), dtype=torch.bool)
    if masked:
        allowed = allowed & torch.tensor(mask)[:, None, None, :]
    theirs = torch.nn.functional.scaled_dot_product_attention(*heads_first, attn_mask=allowed).transpose(1, 2).numpy()
    np.testing.assert_allclose(found, theirs, rtol=1e-5, atol=1e-6)


def test_attention_over_a_cache_is_the_same():
    queries, keys, values = random((3, 2, 2, 4)), random((3, 5, 2, 4), 1), random((3, 5, 2, 4), 2)
    cache = [ops.zeros((3, 2, 5, 4)) for _ in range(2)]
    for index in range(5):
        entries = [ops.convert_to_tensor(each[:, index, :, None]) for each in (keys, values)]
        cache = [with_entry(old, entry, index) for old, entry in zip(cache, entries, strict=True)]
    found = numbers(cached_attention(ops.convert_to_tensor(queries), *cache, MASK))
    np.testing.assert_allclose(found, reference_attention(queries, keys, values, MASK)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("cross", "causal"), [(False, False), (False, True), (True, False)])
def test_multi_head_attention_is_that_of_pytorch(cross, causal):
    torch = pytest.importorskip("torch")
    layer = MultiHeadAttention(2)
    layer.build((None, None, 8))
    randomize(layer)
    x, memory = random((3, 4 if cross else 5, 8)), random((3, 5, 8), seed=1)
    found = layer(x, memory if cross else None, key_mask=MASK, causal=causal)

    query, query_bias, both, both_bias, output, output_bias = map(torch.tensor, layer.get_weights())
    theirs = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([query, both], dim=1).T)
        theirs.in_proj_bias.copy_(torch.cat([query_bias, both_bias]))
        theirs.out_proj.weight.copy_(output.T)
        theirs.out_proj.bias.copy_(output_bias)
        keys = torch.tensor(memory if cross else x)
        future = ~torch.ones((5, 5), dtype=torch.bool).tril() if causal else None
        expected, weights = theirs(
            torch.tensor(x), keys, keys, key_padding_mask=~torch.tensor(MASK), attn_mask=future,
            average_attn_weights=False,
        )  # fmt: skip
    np.testing.assert_allclose(numbers(found), expected.numpy(), rtol=1e-5, atol=1e-5)
    if not causal:
        found_weights = numbers(layer.attention_weights(ops.convert_to_tensor(x), memory if cross else x, MASK))
        np.testing.assert_allclose(found_weights, weights.numpy(), rtol=1e-5, atol=1e-6)


def test_multi_head_attention_is_that_of_keras():
    ours, theirs = MultiHeadAttention(2), keras.layers.MultiHeadAttention(2, 4)
    x, memory = random((3, 4, 8)), random((3, 5, 8), seed=1)
    ours.build(x.shape)
    randomize(ours)
    theirs.build(x.shape, memory.shape)
    query, query_bias, both, both_bias, output, output_bias = ours.get_weights()
    split = [query, query_bias, both[:, :8], both_bias[:8], both[:, 8:], both_bias[8:], output, output_bias]
    theirs.set_weights([value.reshape(weight.shape) for value, weight in zip(split, theirs.weights, strict=True)])
    expected = theirs(x, memory, attention_mask=MASK[:, None, :])
    np.testing.assert_allclose(numbers(ours(x, memory, key_mask=MASK)), numbers(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_grouped_queries_are_those_of_pytorch(causal):
    torch = pytest.importorskip("torch")
    queries, keys, values = random((3, 5, 6, 4)), random((3, 5, 2, 4), 1), random((3, 5, 2, 4), 2)
    found = numbers(dot_product_attention(*map(ops.convert_to_tensor, (queries, keys, values)), causal=causal))
    heads_first = [torch.tensor(each).transpose(1, 2) for each in (queries, keys, values)]
    theirs = torch.nn.functional.scaled_dot_product_attention(*heads_first, is_causal=causal, enable_gqa=True)
    np.testing.assert_allclose(found, theirs.transpose(1, 2).numpy(), rtol=1e-5, atol=1e-6)

    cache = [ops.convert_to_tensor(each.transpose(0, 2, 1, 3)) for each in (keys, values)]
    last = numbers(cached_attention(ops.convert_to_tensor(queries[:, 2:3]), *cache, np.arange(5)[None] <= 2))
    expected, _ = reference_attention(queries, *(np.repeat(each, 3, axis=2) for each in (keys, values)), causal=True)
    np.testing.assert_allclose(last[:, 0], expected[:, 2], rtol=1e-5, atol=1e-6)


def test_heads_share_keys_equally():
    with pytest.raises(ValueError, match="4 heads cannot share 3 heads of keys and values equally"):
        MultiHeadAttention(4, key_value_heads=3)


@pytest.mark.parametrize("activation", ["relu", "gelu", "swiglu"])
def test_feed_forward_is_that_of_pytorch(activation):
    torch = pytest.importorskip("torch")
    layer, x = FeedForward(6, activation), random((2, 3, 4))
    layer.build(x.shape)
    randomize(layer)
    kernel, bias, contract, contract_bias = map(torch.tensor, layer.get_weights())
    hidden = torch.tensor(x) @ kernel + bias
    if activation == "swiglu":
        hidden = torch.nn.functional.silu(hidden[..., :6]) * hidden[..., 6:]
    else:
        hidden = getattr(torch.nn.functional, activation)(hidden)
    np.testing.assert_allclose(numbers(layer(x)), hidden @ contract + contract_bias, rtol=1e-5, atol=1e-6)


def test_rms_normalization_is_that_of_pytorch():
    torch = pytest.importorskip("torch")
    block, x = CausalBlock(2, 16, normalization="rms"), random((3, 4, 8))
    block.build(x.shape)
    (scale,) = [0.5 + np.arange(8, dtype="float32")]
    block.attention_norm.set_weights([scale])
    expected = torch.nn.functional.rms_norm(torch.tensor(x), (8,), torch.tensor(scale), eps=1e-5)
    np.testing.assert_allclose(numbers(block.attention_norm(x)), expected, rtol=1e-5, atol=1e-6)


def test_causal_blocks_are_those_of_keras_hub():
    hub = pytest.importorskip("keras_hub")
    ours, x = CausalBlock(2, 16, activation="gelu"), random((3, 4, 8))
    ours.build(x.shape)
    randomize(ours)
    theirs = hub.layers.TransformerDecoder(
        16, 2, activation="gelu", normalize_first=True, layer_norm_epsilon=1e-5
    )  # without a memory it is the block of a decoder-only model
    theirs(x)
    give_attention(ours.attention, theirs._self_attention_layer)
    for mine, other in [
        (ours.attention_norm, theirs._self_attention_layer_norm),
        (ours.feed_forward_norm, theirs._feedforward_layer_norm),
        (ours.feed_forward.expand, theirs._feedforward_intermediate_dense),
        (ours.feed_forward.contract, theirs._feedforward_output_dense),
    ]:
        other.set_weights(mine.get_weights())
    np.testing.assert_allclose(numbers(ours(x)), numbers(theirs(x)), rtol=1e-4, atol=1e-5)


def test_learned_positions_are_those_of_keras_hub():
    hub = pytest.importorskip("keras_hub")
    x = random((2, 6, 8))
    ours, theirs = LearnedPositions(9), hub.layers.PositionEmbedding(9)
    ours.build(x.shape)
    randomize(ours)
    theirs.build(x.shape)
    theirs.set_weights(ours.get_weights())
    for start in (0, 3):
        expected = x + numbers(theirs(x, start_index=start))
        np.testing.assert_allclose(numbers(ours(x, start=start)), expected, rtol=1e-5, atol=1e-6)


def test_blocks_are_those_of_keras_hub():
    hub = pytest.importorskip("keras_hub")
    x, memory = random((3, 4, 8)), random((3, 5, 8), seed=1)
    ours = TransformerDecoderBlock(2, 16)
    ours.build(x.shape)
    randomize(ours)
    theirs = hub.layers.TransformerDecoder(16, 2, normalize_first=True, layer_norm_epsilon=1e-5)
    theirs(x, memory)
    give_attention(ours.attention, theirs._self_attention_layer)
    give_attention(ours.cross_attention, theirs._cross_attention_layer)
    for mine, other in [
        (ours.attention_norm, theirs._self_attention_layer_norm), (ours.cross_norm, theirs._cross_attention_layer_norm),
        (ours.feed_forward_norm, theirs._feedforward_layer_norm),
        (ours.feed_forward.expand, theirs._feedforward_intermediate_dense),
        (ours.feed_forward.contract, theirs._feedforward_output_dense),
    ]:  # fmt: skip
        other.set_weights(mine.get_weights())
    expected = theirs(x, memory, encoder_padding_mask=MASK)
    np.testing.assert_allclose(numbers(ours(x, memory, key_mask=MASK)), numbers(expected), rtol=1e-4, atol=1e-5)


def give_attention(ours, theirs):
    query, query_bias, both, both_bias, output, output_bias = ours.get_weights()
    width = query.shape[0]
    split = [query, query_bias, both[:, :width], both_bias[:width], both[:, width:], both_bias[width:]]
    values = [*split, output, output_bias]
    theirs.set_weights([value.reshape(weight.shape) for value, weight in zip(values, theirs.weights, strict=True)])


def test_sinusoidal_positions_are_those_of_the_paper():
    found = numbers(SinusoidalPositions()(np.zeros((1, 50, 8), "float32")))[0]
    for place in (0, 1, 7, 49):
        for i in range(4):
            angle = place / 10000 ** (i / 3)
            np.testing.assert_allclose(found[place, [i, i + 4]], [np.sin(angle), np.cos(angle)], rtol=1e-4, atol=1e-5)
    later = numbers(SinusoidalPositions()(np.zeros((1, 3, 8), "float32"), start=7))[0]
    np.testing.assert_allclose(later, found[7:10], rtol=1e-5, atol=1e-6)


def test_rotary_positions():
    x = random((2, 6, 3, 8))
    found = numbers(apply_rotary_embedding(ops.convert_to_tensor(x)))
    for place in range(6):
        for i in range(4):
            turn = np.exp(1j * place / 10000 ** (2 * i / 8))
            expected = (x[:, place, :, i] + 1j * x[:, place, :, i + 4]) * turn
            np.testing.assert_allclose(found[:, place, :, i], expected.real, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(found[:, place, :, i + 4], expected.imag, rtol=1e-4, atol=1e-5)
    # What attention sees does not change when all places move.
    keys = ops.convert_to_tensor(random((2, 6, 3, 8), seed=1))
    products = [
        np.einsum(
            "bnhd,bmhd->bhnm",
            numbers(apply_rotary_embedding(ops.convert_to_tensor(x), s)),
            numbers(apply_rotary_embedding(keys, s)),
        )
        for s in (0, 11)
    ]
    np.testing.assert_allclose(*products, rtol=1e-4, atol=1e-4)


@pytest.mark.in_turn
@pytest.mark.parametrize(("rotary", "beams"), [(False, 1), (True, 1), (False, 2)])
def test_token_by_token_is_the_same(rotary, beams):
    decoder, memory = TransformerDecoder(2, 2, 16, rotary=rotary), random((3, 5, 8))
    x = random((3 * beams, 7, 8), seed=1)
    decoder.build(x.shape)
    randomize(decoder)
    repeated, mask = (np.repeat(each, beams, axis=0) for each in (memory, MASK))
    expected = numbers(decoder(x, ops.convert_to_tensor(repeated), key_mask=mask))
    caches, fixed = decoder.start(ops.convert_to_tensor(memory), 9)
    caches = keras.tree.map_structure(lambda each: ops.repeat(each, beams, axis=0), caches)
    shapes = [each.shape for cache in caches for each in cache]
    for index in range(7):
        outputs, caches = decoder.step(ops.convert_to_tensor(x[:, index : index + 1]), caches, fixed, MASK, index)
        np.testing.assert_allclose(numbers(outputs)[:, 0], expected[:, index], rtol=1e-4, atol=1e-5)
    assert [each.shape for cache in caches for each in cache] == shapes


@pytest.mark.parametrize(("rotary", "key_value_heads"), [(False, None), (True, 2)])
def test_a_causal_transformer_reads_token_by_token_as_at_once(rotary, key_value_heads):
    decoder, x = CausalTransformer(2, 4, 16, 0.5, rotary, key_value_heads, "rms", "swiglu"), random((3, 7, 8))
    decoder.build(x.shape)
    randomize(decoder)
    expected = numbers(decoder(x))
    outputs, caches = decoder.read(ops.convert_to_tensor(np.concatenate([x[:, :4], x[:, :3] + 9], axis=1)))
    np.testing.assert_allclose(numbers(outputs)[:, :4], expected[:, :4], rtol=1e-4, atol=1e-5)
    assert {tuple(each.shape) for cache in caches for each in cache} == {(3, key_value_heads or 4, 7, 2)}
    for index in range(4, 7):  # what the cache holds from there on is of another text
        outputs, caches = decoder.step(ops.convert_to_tensor(x[:, index : index + 1]), caches, index)
        np.testing.assert_allclose(numbers(outputs)[:, 0], expected[:, index], rtol=1e-4, atol=1e-5)
    weights = [numbers(each) for each in decoder.attention_weights(ops.convert_to_tensor(x))]
    assert [each.shape for each in weights] == [(3, 4, 7, 7)] * 2
    for each in weights:
        np.testing.assert_allclose(each.sum(axis=-1), 1, rtol=1e-5)
        assert (each[..., ~np.tril(np.ones((7, 7), bool))] < 1e-6).all()


@pytest.mark.parametrize("rotary", [False, True])
def test_nothing_looks_ahead_and_padding_changes_nothing(rotary):
    encoder = randomize_built(TransformerEncoder(2, 2, 16, rotary=rotary))
    decoder = randomize_built(TransformerDecoder(2, 2, 16, rotary=rotary))
    source, target = random((3, 5, 8)), random((3, 4, 8), seed=1)
    memory = encoder(source, key_mask=MASK)
    outputs = numbers(decoder(target, memory, key_mask=MASK))

    longer = np.concatenate([source, random((3, 4, 8), seed=2)], axis=1)
    longer[:, :5][~MASK] += 9
    mask = np.concatenate([MASK, np.zeros((3, 4), bool)], axis=1)
    changed = numbers(encoder(longer, key_mask=mask))
    np.testing.assert_allclose(changed[:, :5][MASK], numbers(memory)[MASK], rtol=1e-4, atol=1e-5)
    more = np.concatenate([target, random((3, 2, 8), seed=3)], axis=1)
    again = numbers(decoder(more, ops.convert_to_tensor(changed), key_mask=mask))
    np.testing.assert_allclose(again[:, :4], outputs, rtol=1e-4, atol=1e-5)
    more[:, 2] += 1
    other = numbers(decoder(more, ops.convert_to_tensor(changed), key_mask=mask))
    np.testing.assert_allclose(other[:, :2], again[:, :2], rtol=1e-4, atol=1e-5)


def randomize_built(layer):
    layer.build((None, None, 8))
    return randomize(layer)


def test_cross_attention_weights_sum_to_one_without_padding():
    decoder = randomize_built(TransformerDecoder(2, 2, 16))
    memory = ops.convert_to_tensor(random((3, 5, 8)))
    weights = numbers(decoder.cross_weights(ops.convert_to_tensor(random((3, 4, 8), seed=1)), memory, MASK))
    assert weights.shape == (3, 2, 4, 5)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose(weights[2, :, :, 0], 1, rtol=1e-5)


def test_tied_embedding():
    embedding = TokenEmbedding(11, 4)
    embedding.build()
    randomize(embedding)
    (table,) = embedding.get_weights()
    ids = np.array([[3, 10, 0]])
    np.testing.assert_allclose(numbers(embedding(ids)), table[ids] * 2, rtol=1e-6)
    x = random((2, 3, 4))
    np.testing.assert_allclose(numbers(embedding(x, reverse=True)), x @ table.T, rtol=1e-4, atol=1e-5)
    again = TokenEmbedding.from_config(embedding.get_config())
    assert with_public_classes(again.get_config()) == with_public_classes(embedding.get_config())


def test_heads_must_divide_the_channels():
    with pytest.raises(ValueError, match="8 channels cannot be divided among 3 heads"):
        MultiHeadAttention(3).build((None, None, 8))
