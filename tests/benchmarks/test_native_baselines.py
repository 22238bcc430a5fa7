"""What the native baselines share: refused options, and weights from Keras and back.

That each trains as its recipe does is tested with the recipe.
"""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from conftest import refused_in_one_line

from benchmarks.native import require_options


@pytest.mark.once
def test_other_options_are_refused_all_at_once():
    config = SimpleNamespace(precision="mixed_bfloat16", no_repeat=3, beams=1)
    with refused_in_one_line("the native baseline needs --precision float32 --no-repeat 0: add that, or leave out"):
        require_options(config, precision="float32", no_repeat=0, beams=1)
    require_options(config, no_repeat=3, beams=1)


@pytest.mark.skipif(keras.config.backend() != "torch", reason="it is in PyTorch")
@pytest.mark.parametrize("recurrent", ["GRU", "LSTM"])
def test_weights_come_in_and_out_and_frozen_ones_stay(recurrent):
    from torch import nn

    from benchmarks.native_torch import keras_weights, load_weights

    layer = getattr(keras.layers, recurrent)(2)
    model = keras.Sequential([keras.Input((None, 3)), keras.layers.Dense(3), layer, keras.layers.Dense(4)])
    model.layers[0].trainable = False
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=weight.shape).astype("float32") for weight in model.weights]
    model.set_weights(weights)
    parts = nn.Linear(3, 3), getattr(nn, recurrent)(3, 2, batch_first=True), nn.Linear(2, 4)
    network = load_weights(nn.ModuleList(parts), model)
    for found, expected in zip(keras_weights(network), weights, strict=True):
        np.testing.assert_array_equal(found, expected)
    fixed = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert fixed == {"0.weight", "0.bias"} | ({"1.bias_hh_l0"} if recurrent == "LSTM" else set())
    with pytest.raises(ValueError, match="2 weights of the Keras model have no place"):
        load_weights(nn.ModuleList(parts[:2]), model)
    with pytest.raises(ValueError):
        load_weights(nn.ModuleList([*parts, nn.Linear(4, 4)]), model)
    with pytest.raises(RuntimeError, match="size mismatch"):
        load_weights(nn.ModuleList([*parts[:2], nn.Linear(2, 5)]), model)
