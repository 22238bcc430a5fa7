"""Checkpoints: what is refused, what is used instead, and what a full disk leaves."""

import resource

import keras
import numpy as np
import pytest

from shared.errors import UsageError
from shared.training.checkpoint import Checkpoint, CheckpointStore, read_variables
from shared.training.saving import load_initial_weights, read_model, save_model

pytestmark = pytest.mark.once

IDENTITY = {"recipe": "some", "keras": "1.0"}
SHAPES = {"model/0000": (3,), "optimizer/0000": ()}


def make_checkpoint(value):
    return Checkpoint({"model/0000": np.full(3, value), "optimizer/0000": np.array(value)}, {"epoch": value})


@pytest.fixture
def store(tmp_path):
    store = CheckpointStore(tmp_path, IDENTITY)
    for step in (1, 2, 3):
        store.save(step, make_checkpoint(step))
    return store


def test_keeps_the_newest_two(store):
    assert [path.name for path in store.paths()] == ["step-000000002.npz", "step-000000003.npz"]
    checkpoint = store.load(SHAPES)
    assert checkpoint.facts == {"epoch": 3}
    np.testing.assert_array_equal(checkpoint.arrays["model/0000"], [3, 3, 3])


def test_none_yet(tmp_path):
    assert CheckpointStore(tmp_path, IDENTITY).load(SHAPES) is None


@pytest.mark.parametrize("damage", ["empty", "cut short", "flipped byte", "text", "array file"])
def test_the_one_before_a_damaged_one_is_used(store, damage, capsys):
    path = store.paths()[-1]
    content = bytearray(path.read_bytes())
    if damage == "array file":
        with open(path, "wb") as file:
            np.save(file, np.arange(3))
    else:
        flipped = content.copy()
        flipped[content.index(np.full(3, 3).tobytes())] ^= 1
        path.write_bytes({"empty": b"", "cut short": content[:-30], "flipped byte": flipped, "text": b"hello"}[damage])
    assert store.load(SHAPES).facts == {"epoch": 2}
    message = capsys.readouterr().out
    assert message.startswith(f"refused {path}: damaged")
    assert message.count("\n") == 1


def damaged_copies(path, flips=None):
    """Puts each single-bit flip of a file in its place, or a sample of so many, then some truncations of it."""
    content = path.read_bytes()
    count = 8 * len(content)
    for flip in range(count) if flips is None else np.random.default_rng(0).choice(count, flips, replace=False):
        place, bit = divmod(int(flip), 8)
        flipped = bytearray(content)
        flipped[place] ^= 1 << bit
        path.write_bytes(flipped)
        yield f"bit {bit} of byte {place}"
    for length in range(0, len(content), 7 if flips is None else len(content) // 9):
        path.write_bytes(content[:length])
        yield f"cut to {length} bytes"


def test_any_damage_is_found_or_changes_nothing(tmp_path):
    store = CheckpointStore(tmp_path, {"recipe": "some"})
    whole = Checkpoint({"model/0000": np.full(2, 0.5), "metrics/0000": np.array(7)}, {"epoch": 1})
    store.save(1, whole)
    path, harmless = store.paths()[0], 0
    for damage in damaged_copies(path):
        try:
            found = store.read(path, {"model/0000": (2,)})
        except ValueError as error:
            assert "\n" not in str(error), damage
            continue
        assert found.facts == whole.facts, damage
        assert found.arrays.keys() == whole.arrays.keys(), damage
        for name, array in whole.arrays.items():
            np.testing.assert_array_equal(found.arrays[name], array, err_msg=damage)
            assert found.arrays[name].dtype == array.dtype, damage
        harmless += 1
    assert 0 < harmless < 4000  # such as the time in the archive's directory


def small_model():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])


def test_a_damaged_model_is_refused(tmp_path):
    save_model(model := small_model(), path := tmp_path / "model.keras")
    refused = 0
    for damage in damaged_copies(path, flips=60):
        try:
            found = read_model(path)
        except ValueError as error:
            assert "\n" not in str(error), damage
            refused += 1
            continue
        for ours, there in zip(model.get_weights(), found.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, there, err_msg=damage)
    assert refused > 30


@pytest.mark.parametrize("name", ["start.keras", "start.weights.h5"])
def test_damaged_initial_weights_are_refused_in_one_line(tmp_path, name):
    path = tmp_path / name
    small_model().save(path) if name == "start.keras" else small_model().save_weights(path)
    refused, model = 0, small_model()
    for damage in damaged_copies(path, flips=60):
        try:
            load_initial_weights(model, path)
        except UsageError as error:
            assert "--initial-weights" in str(error), damage
            assert "\n" not in str(error), damage
            refused += 1
    assert refused > 8  # HDF5 has no checksums: not every flip can be seen


@pytest.mark.parametrize(("name", "value"), [("recipe", "other"), ("keras", "2.0"), ("format", "other checkpoint 9")])
def test_foreign_ones_are_refused_by_name(store, name, value, capsys):
    stranger = CheckpointStore(store.directory, IDENTITY)
    stranger.identity[name] = value
    stranger.save(4, make_checkpoint(4))
    assert store.load(SHAPES).facts == {"epoch": 3}
    assert f"its {name} is {value}, here it is {store.identity[name]}" in capsys.readouterr().out


@pytest.mark.parametrize("shapes", [{"model/0000": (4,), "optimizer/0000": ()}, {"model/0000": (3,)}])
def test_another_model_is_refused(store, shapes, capsys):
    with pytest.raises(UsageError, match="start anew with another --out"):
        store.load(shapes)
    assert capsys.readouterr().out.count("another model") == 2


def test_pickles_are_refused(store, capsys):
    np.savez(store.directory / "step-000000009.npz", facts=np.array([{"a": 1}], dtype=object))
    assert store.load(SHAPES).facts == {"epoch": 3}
    assert "damaged or not a checkpoint" in capsys.readouterr().out


def test_a_full_disk_loses_nothing(store):
    before = {path.name: path.read_bytes() for path in store.directory.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))  # the system refuses to write on, as on a full disk
    try:
        with pytest.raises(OSError):
            store.save(4, make_checkpoint(4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in store.directory.iterdir()} == before


def test_seed_generators_and_averages_are_among_the_variables():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dropout(0.5), keras.layers.BatchNormalization()])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True), "mse")
    model.optimizer.build(model.trainable_variables)
    names = [name.partition("/")[0] for name in read_variables(model)]
    assert names.count("model") == 5  # a seed, and gamma, beta, mean and variance
    assert names.count("optimizer") == 6  # step, learning rate, and for gamma and beta a momentum and an average
