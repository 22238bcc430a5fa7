"""Learning-rate schedules, against those of PyTorch and against closed forms."""

import keras
import numpy as np
import pytest

from shared.training.schedules import OneCycle, ScheduleOfUpdates

SCHEDULES = keras.optimizers.schedules


@pytest.mark.only_on("torch")
@pytest.mark.parametrize("steps", [10, 200])
def test_one_cycle_has_the_rates_of_pytorch(steps):
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.3, total_steps=steps, cycle_momentum=False)
    ours, expected = OneCycle(0.3, steps), []
    for _ in range(steps):
        expected.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step() if len(expected) < steps else None
    np.testing.assert_allclose([float(ours(step)) for step in range(steps)], expected, rtol=1e-4, atol=1e-7)


def test_one_cycle_rises_and_falls_and_is_defined_for_few_steps():
    rates = [float(OneCycle(1.0, 100)(step)) for step in range(100)]
    assert (rates[0], max(rates), np.argmax(rates)) == (pytest.approx(0.04), pytest.approx(1.0), 29)
    assert rates[-1] == pytest.approx(4e-6, rel=1e-2)
    assert np.isfinite([float(OneCycle(1.0, 1)(0)), float(OneCycle(1.0, 2)(1))]).all()


def test_a_schedule_of_updates_goes_on_once_an_update():
    inner = SCHEDULES.PolynomialDecay(1.0, 4, 0.0)
    schedule = ScheduleOfUpdates(inner, 3)
    rates = [float(schedule(keras.ops.convert_to_tensor(step))) for step in range(12)]
    np.testing.assert_allclose(rates, np.repeat([1.0, 0.75, 0.5, 0.25], 3), atol=1e-6)


@pytest.mark.once
@pytest.mark.parametrize("schedule", [OneCycle(0.2, 30), ScheduleOfUpdates(SCHEDULES.CosineDecay(0.1, 9), 2)])
def test_schedules_are_saved_and_loaded(schedule):
    again = SCHEDULES.deserialize(SCHEDULES.serialize(schedule))
    assert float(again(7)) == float(schedule(7))
    assert again.get_config() == schedule.get_config()
