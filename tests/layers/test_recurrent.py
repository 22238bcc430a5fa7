"""The fused recurrent layers against Keras's own: outputs, states and gradients, for every way to call them."""

import keras
import numpy as np
import pytest
from conftest import normal, numbers

from shared.backends.compiling import compiled_inference
from shared.backends.gradients import value_and_grad
from shared.layers.recurrent import FusedGRU, FusedLSTM

PAIRS = {"lstm": (FusedLSTM, keras.layers.LSTM), "gru": (FusedGRU, keras.layers.GRU)}
BATCH, STEPS, FEATURES, UNITS = 4, 6, 5, 3

LENGTHS = np.array([6, 2, 0, 4])
MASKS = {
    "no mask": None,
    "padded behind": np.arange(STEPS) < LENGTHS[:, None],
    "padded in front": np.arange(STEPS) >= STEPS - LENGTHS[:, None],
    "with holes": np.random.default_rng(5).random((BATCH, STEPS)) < 0.6,
}
OPTIONS = {
    "sequences": {"return_sequences": True},
    "last": {},
    "backwards": {"return_sequences": True, "go_backwards": True},
    "zeros": {"return_sequences": True, "zero_output_for_mask": True},
    "without bias": {"return_sequences": True, "use_bias": False},
}
if keras.config.backend() != "torch":  # where these layers only pass on to Keras's own: enough to see that they do
    MASKS = {name: MASKS[name] for name in ("no mask", "padded behind")}
    OPTIONS = {name: OPTIONS[name] for name in ("sequences", "backwards")}

TORCH_ONLY = pytest.mark.skipif(keras.config.backend() != "torch", reason="elsewhere the backend compiles Keras's loop")
UNFUSED = [{"activation": "relu"}, {"recurrent_activation": "hard_sigmoid"}, {"unroll": True}, {"use_cudnn": False}]


@pytest.fixture(params=PAIRS)
def pair(request):
    return PAIRS[request.param]


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def randomize(layer):
    for index, variable in enumerate(layer.trainable_variables):
        variable.assign(random(*variable.shape, seed=index + 1) * 0.7)


def results(layer, mask, states, x=None):
    """Outputs and final states of a layer, and the gradients of a random sum of them by inputs, states and weights."""
    variables = [keras.Variable(random(BATCH, STEPS, FEATURES) if x is None else x)]
    variables += [keras.Variable(random(BATCH, UNITS, seed=10 + index)) for index in range(states)]

    def call():
        given = {"initial_state": [variable.value for variable in variables[1:]]} if states else {}
        return keras.tree.flatten(layer(variables[0].value, mask=mask, **given))

    def loss():
        outputs = call()
        weighted = [keras.ops.multiply(out, random(*out.shape, seed=20 + i)) for i, out in enumerate(outputs)]
        return sum(keras.ops.sum(each) for each in weighted)

    _, gradients = value_and_grad(loss, [*variables, *layer.trainable_variables])
    return [None if each is None else keras.ops.convert_to_numpy(each) for each in [*call(), *gradients]]


def assert_same(ours, theirs, **arguments):
    found = [results(layer, **arguments) for layer in (ours, theirs)]
    assert len(found[0]) == len(found[1])
    for a, b in zip(*found, strict=True):
        assert a is not None
        assert np.abs(b).max() > 1e-3
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_step_by_step_as_all_at_once(pair):
    layer = pair[0](UNITS, return_sequences=True, return_state=True)
    x = random(BATCH, STEPS, FEATURES)
    layer.build(x.shape)
    randomize(layer)
    outputs, *ends = layer(x)
    states, found = None, []
    for step in range(STEPS):
        output, *states = layer(x[:, step : step + 1], initial_state=states)
        found.append(keras.ops.convert_to_numpy(output))
    np.testing.assert_allclose(np.concatenate(found, axis=1), keras.ops.convert_to_numpy(outputs), rtol=1e-5, atol=1e-6)
    for state, end in zip(states, ends, strict=True):
        np.testing.assert_allclose(*map(keras.ops.convert_to_numpy, (state, end)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("mask", MASKS)
def test_same_as_keras(pair, options, mask):
    layers = [make(UNITS, return_state=True, **OPTIONS[options]) for make in pair]
    for layer in layers:
        layer.build((None, STEPS, FEATURES))
        randomize(layer)
    states = len(layers[0].cell.state_size) if isinstance(layers[0].cell.state_size, list) else 1
    assert_same(*layers, mask=MASKS[mask], states=states)


@pytest.mark.parametrize("mask", MASKS)
def test_same_as_keras_in_both_directions(pair, mask):
    layers = [keras.layers.Bidirectional(make(UNITS, return_sequences=True, return_state=True)) for make in pair]
    for layer in layers:
        layer.build((None, STEPS, FEATURES))
        randomize(layer)
    assert type(layers[0].backward_layer) is pair[0]
    assert_same(*layers, mask=MASKS[mask], states=0)


def test_an_embedding_masks_lengths(pair):
    words = np.where(MASKS["padded behind"], np.random.default_rng(0).integers(1, 9, (BATCH, STEPS)), 0)
    models = []
    for make in pair:
        model = keras.Sequential([keras.Input((None,)), keras.layers.Embedding(9, 4, mask_zero=True), make(UNITS)])
        randomize(model)
        models.append(model)
    ours, theirs = (keras.ops.convert_to_numpy(model(words)) for model in models)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    for row, length in enumerate(LENGTHS):
        alone = np.zeros((1, UNITS)) if length == 0 else models[0](words[row : row + 1, :length])
        np.testing.assert_allclose(ours[row : row + 1], keras.ops.convert_to_numpy(alone), rtol=1e-4, atol=1e-5)


def test_steps_of_one_sequence_with_the_state_carried(pair):
    layer = pair[0](UNITS, return_sequences=True, return_state=True)
    x = random(2, 7, FEATURES)
    whole, *final = layer(x)
    pieces, states = [], None
    for piece in (x[:, :3], x[:, 3:4], x[:, 4:]):
        outputs, *states = layer(piece, initial_state=states)
        pieces.append(keras.ops.convert_to_numpy(outputs))
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), keras.ops.convert_to_numpy(whole), rtol=1e-4, atol=1e-5)
    for a, b in zip(states, final, strict=True):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b), rtol=1e-4, atol=1e-5)


def test_stateful(pair):
    x, outputs = random(2, 4, FEATURES), []
    for make in pair:
        layer = make(UNITS, stateful=True)
        layer.build((2, 4, FEATURES))
        randomize(layer)
        layer(x)
        outputs.append(keras.ops.convert_to_numpy(layer(x)))
    np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-5)
    layer.reset_state()
    assert np.abs(keras.ops.convert_to_numpy(layer(x)) - outputs[0]).max() > 1e-3


@TORCH_ONLY
@pytest.mark.parametrize("options", UNFUSED)
def test_what_cannot_be_fused_is_that_of_keras(pair, options):
    layers = [make(UNITS, return_sequences=True, **options) for make in pair]
    for layer in layers:
        layer.build((None, STEPS, FEATURES))
        randomize(layer)
    assert_same(*layers, mask=MASKS["padded behind"], states=0)


def test_dropout_in_training_is_on(pair):
    layer = pair[0](UNITS, dropout=0.5, recurrent_dropout=0.5)
    x = random(BATCH, STEPS, FEATURES)
    plain, noisy = (keras.ops.convert_to_numpy(layer(x, training=training)) for training in (False, True))
    assert np.abs(plain - noisy).max() > 1e-3


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(pair, policy):
    x, outputs = random(BATCH, STEPS, FEATURES), []
    for make in pair:
        layer = make(UNITS, dtype=policy)
        layer.build(x.shape)
        randomize(layer)
        y = layer(x, mask=MASKS["padded behind"])
        assert keras.backend.standardize_dtype(y.dtype) == policy.removeprefix("mixed_")
        assert {weight.dtype for weight in layer.trainable_weights} == {"float32"}
        outputs.append(keras.ops.convert_to_numpy(keras.ops.cast(y, "float32")))
    np.testing.assert_allclose(*outputs, atol=0.05)


def test_trains_in_fit_and_loads_into_keras_own(pair, tmp_path):
    model = keras.Sequential([keras.Input((None, FEATURES)), pair[0](UNITS, return_sequences=True), pair[0](UNITS)])
    model.compile("sgd", "mse")
    model.fit(random(8, STEPS, FEATURES), random(8, UNITS), verbose=0)
    x = random(2, STEPS, FEATURES, seed=1)
    expected = model.predict(x, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.layers[0]) is pair[0]
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), expected)
    own = keras.Sequential([keras.Input((None, FEATURES)), pair[1](UNITS, return_sequences=True), pair[1](UNITS)])
    own.set_weights(model.get_weights())
    np.testing.assert_allclose(own.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-5)


def test_config_is_that_of_keras(pair):
    ours, theirs = (make(UNITS, dropout=0.2, name="same") for make in pair)
    assert ours.get_config() == theirs.get_config()


@TORCH_ONLY
def test_on_torch_no_step_runs_in_python(pair, monkeypatch):
    layer = pair[0](UNITS)
    layer.build((None, STEPS, FEATURES))
    monkeypatch.setattr(type(layer.cell), "call", None)
    for name in ("lstm", "gru"):
        monkeypatch.setattr(keras.src.backend, name, None)
    for mask in MASKS.values():
        assert layer(random(BATCH, STEPS, FEATURES), mask=mask).shape == (BATCH, UNITS)


@pytest.mark.only_on("torch")
@pytest.mark.parametrize("kind", [FusedLSTM, FusedGRU])
def test_masked_sequences_are_recorded_and_masked_anew_at_each_call(kind):
    layer, called = kind(3, return_sequences=True), []
    layer.build((None, 6, 4))

    def function(inputs, mask):
        called.append(None)
        return layer(inputs, mask=mask)

    program = compiled_inference(function, [layer])
    for seed in range(4):
        inputs = normal(5, 6, 4, seed=seed)
        mask = np.random.default_rng(seed).random((5, 6)) < 0.6
        np.testing.assert_allclose(numbers(program(inputs, mask)), numbers(layer(inputs, mask=mask)), rtol=1e-5)
    assert len(called) == 2  # as it is, and to be recorded
