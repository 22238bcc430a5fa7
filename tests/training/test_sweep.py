"""Sweeps: which learning rate is chosen, what is kept, what a resumed one does with it."""

import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from conftest import refused_in_one_line

from shared.training.divergence import Diverged
from shared.training.sweep import Sweep

pytestmark = pytest.mark.once

SCORES = {0.1: 0.5, 0.3: 0.9, 1.0: 0.9, 3.0: None}


class FakeRun:
    """A run of which a sweep uses its directory and the histories of its trainings."""

    def __init__(self, directory, epochs=2):
        self.directory = directory
        self.config = SimpleNamespace(epochs=epochs)
        self.recorders, self.closed = {}, []

    def versions(self):
        return {"keras": "3"}

    def close(self, phase):
        self.closed.append(phase)


def sweep_in(directory, **options):
    trained = []

    def train(setting, rate, seed, phase):
        trained.append((setting, rate, seed, phase))
        run.recorders[phase] = SimpleNamespace(history=[{"epoch": 1}], checkpoints=SimpleNamespace(train_seconds=2.0))
        if SCORES[rate] is None:
            raise Diverged("loss is nan")
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.set_weights([np.full((1, 1), rate), np.full(1, seed)])
        return model, SCORES[rate] + seed / 100, {"setting": setting}

    run = FakeRun(directory, **options)
    return Sweep(run, "points 1", train), run, trained


def test_the_best_learning_rate_is_trained_with_each_seed(tmp_path):
    sweep, run, trained = sweep_in(tmp_path)
    found = sweep.search({"a": [3.0, 1.0, 0.3, 0.1], "b": [0.1, 0.3]}, range(5, 8))
    assert trained == [
        ("a", 0.1, 5, ""), ("a", 0.3, 5, "a-0.3-5"), ("a", 1.0, 5, "a-1-5"), ("a", 3.0, 5, "a-3-5"),
        ("a", 0.3, 6, "a-0.3-6"), ("a", 0.3, 7, "a-0.3-7"),
        ("b", 0.1, 5, "b-0.1-5"), ("b", 0.3, 5, "b-0.3-5"), ("b", 0.3, 6, "b-0.3-6"), ("b", 0.3, 7, "b-0.3-7"),
    ]  # fmt: skip
    assert run.closed == [phase for *_, phase in trained[1:]]
    assert (found["a"].learning_rate, found["a"].at_edge, found["b"].at_edge) == (0.3, False, True)
    assert found["a"].score == pytest.approx(0.9 + 0.06)
    assert [each.score for each in found["a"].tried] == pytest.approx([0.55, 0.95, 0.95, None])
    assert found["a"].tried[-1].facts == {"diverged": "loss is nan"}
    assert sweep.seconds == 20.0
    kept = {path.name for path in (tmp_path / "trainings").glob("*.npz")}
    assert kept == {f"{value}-0.3-{seed}.npz" for value in "ab" for seed in (5, 6, 7)}
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    sweep.load_weights(found["a"].chosen[2], model)
    np.testing.assert_allclose([float(np.ravel(each)[0]) for each in model.get_weights()], [0.3, 7])
    (tmp_path / "trainings/a-0.3-7.npz").write_bytes(b"")
    with refused_in_one_line("a-0.3-7.npz is damaged"):
        sweep.load_weights(found["a"].chosen[2], model)


@pytest.mark.parametrize(
    ("rates", "further", "tried", "at_edge"),
    [
        ([0.1, 0.2], 3, [0.1, 0.2, 0.4, 0.8], False),
        ([0.1, 0.2], 2, [0.1, 0.2, 0.4, 0.8], False),
        ([0.1, 0.2], 1, [0.1, 0.2, 0.4], True),
        ([0.8, 1.6], 3, [0.2, 0.4, 0.8, 1.6], False),
        ([0.1], 3, [0.1], False),
    ],
    ids=["to the maximum", "just", "one", "down, from where it diverges", "no ratio"],
)
def test_a_sweep_goes_beyond_the_ends(rates, further, tried, at_edge, tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.SCORES", {0.1: 0.5, 0.2: 0.6, 0.4: 0.9, 0.8: 0.8, 1.6: None})
    sweep, _, _ = sweep_in(tmp_path)
    found = sweep.search({"a": rates}, [0], further)["a"]
    assert [each.learning_rate for each in found.tried] == tried
    assert (found.learning_rate, found.at_edge) == (min(0.4, tried[-1]), at_edge)
    assert sweep.total == len(tried)
    assert [path.name for path in (tmp_path / "trainings").glob("*.npz")] == [f"a-{found.learning_rate:g}-0.npz"]


def test_a_diverged_seed_counts_as_worst(tmp_path):
    sweep, _, _ = sweep_in(tmp_path)
    assert sweep.search({"a": [3.0]}, [0])["a"].score == -np.inf


def test_what_has_ended_is_not_trained_again(tmp_path):
    first, _, _ = sweep_in(tmp_path)
    whole = first.search({"a": [0.1, 0.3]}, [0, 1])
    again, _, trained = sweep_in(tmp_path)
    assert again.search({"a": [0.1, 0.3]}, [0, 1]) == whole
    assert trained == [("a", 0.1, 0, "")], "the main training, which a run opens again"
    assert again.seconds == first.seconds
    (tmp_path / "trainings/a-0.3-1.json").write_text('{"setting": "a"}')
    damaged, _, trained = sweep_in(tmp_path)
    assert damaged.search({"a": [0.1, 0.3]}, [0, 1]) == whole
    assert trained[1:] == [("a", 0.3, 1, "a-0.3-1")]


def test_other_trainings_are_refused(tmp_path):
    sweep_in(tmp_path)
    with refused_in_one_line("is 2, here it is 3: take another --out"):
        sweep_in(tmp_path, epochs=3)
    path = tmp_path / "trainings/identity.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data": "others 2"}))
    with refused_in_one_line("the data of the trainings in"):
        sweep_in(tmp_path)
