"""Training techniques: sizes of gradients, tables and figures of sweeps."""

import keras
import numpy as np
import pytest
from conftest import normal, numbers

from shared.foundations.gradient_norms import gradient_norms
from shared.foundations.sweep_plots import (
    plot_gradient_norms,
    plot_learning_rates,
    plot_schedules,
    plot_sweep_curves,
)
from shared.foundations.sweep_results import sweep_rows
from shared.foundations.sweep_table import sweep_markdown
from shared.foundations.techniques import SCHEDULES
from shared.training.sweep import Outcome, Trials


def test_gradient_norms_are_those_of_the_chain_rule_and_change_nothing():
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(4), layers.BatchNormalization(), layers.Dropout(0.0, seed=1), layers.Dense(2)]
    )
    x, y = normal(6, 3), normal(6, 2, seed=1)
    before = [numbers(variable).copy() for variable in model.variables]
    norms = gradient_norms(model, keras.losses.MeanSquaredError(), (x, y))
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(numbers(variable), value, err_msg=variable.path)
    kernel, bias, *_, last, last_bias = model.get_weights()
    z = x @ kernel + bias
    hidden = (z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + 1e-3)
    expected = hidden.T @ ((hidden @ last + last_bias - y) * 2 / y.size)
    assert len(norms) == 2
    assert norms[1] == pytest.approx(np.sqrt(np.mean(expected**2)), rel=1e-4)
    assert norms[0] > 0


def outcome(setting, rate, seed, score):
    history = [{"epoch": n, "loss": 1 / n, "top1": 0.5, "val_loss": 1.0, "val_top1": score} for n in (1, 2)]
    facts = {"last": history[-1], "gradients_before": [0.0, 0.1], "gradients_after": [1e-3, 0.1]}
    if score is None:
        return Outcome(setting, rate, seed, None, history[:1], {"diverged": "loss is nan"}, 1.0)
    return Outcome(setting, rate, seed, score, history, facts, 1.0)


FOUND = {
    "good": Trials([outcome("good", rate, 0, score) for rate, score in ((0.1, 0.6), (1.0, 0.8), (3.0, None))],
                   [outcome("good", 1.0, seed, 0.8 + seed / 10) for seed in (0, 1)]),
    "shaky": Trials([outcome("shaky", 0.1, 0, 0.7)], [outcome("shaky", 0.1, 0, 0.7), outcome("shaky", 0.1, 1, None)]),
    "bad": Trials([outcome("bad", 0.1, 0, None)], [outcome("bad", 0.1, 0, None)]),
}  # fmt: skip


@pytest.mark.once
def test_a_table_has_mean_and_deviation_and_says_what_diverged():
    rows = sweep_rows(FOUND, {"good": [0.7, 0.8], "shaky": [0.5], "bad": []})
    assert rows[0] | {"val_top1": 0.85} == {
        "value": "good", "learning_rate": 1.0, "top1": pytest.approx(0.75), "deviation": pytest.approx(0.0707107),
        "val_top1": 0.85, "train_top1": 0.5, "epochs": 2, "diverged": 0, "at_edge": False,
    }  # fmt: skip
    assert sweep_markdown(rows, "kind").splitlines()[2:] == [
        "| good | 1 | 0.7500 ± 0.0707 | 0.8500 | 0.5000 |",
        "| shaky | 0.1 | 0.5000 ± 0.0000 (1 seeds diverged) | 0.7000 | 0.5000 |",
        "| bad | 0.1 | diverged | – | – |",
    ]


@pytest.mark.once
def test_figures_of_sweeps_draw_what_did_not_diverge(tmp_path):
    for plot in (plot_sweep_curves, plot_learning_rates, plot_gradient_norms):
        figure = plot(FOUND)
        figure.savefig(tmp_path / "figure.png")
        drawn = [line for axes in figure.axes for line in axes.lines]
        assert {line.get_label().partition(" ")[0] for line in drawn} >= {"good", "shaky"}
    schedules = plot_schedules(list(SCHEDULES), steps=50)
    rates = {line.get_label(): line.get_ydata() for line in schedules.axes[0].lines}
    assert rates.keys() == SCHEDULES.keys()
    for name, values in rates.items():
        assert 0.9 < np.max(values) <= 1.0001, name
        assert np.min(values) >= 0, name
    assert rates["constant"][-1] == 1
    assert max(values[-1] for name, values in rates.items() if name != "constant") < 0.05
