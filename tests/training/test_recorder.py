"""The parts of a recorder, each by itself, on a toy model or none at all."""

import csv
import itertools
import os
import signal
import threading
import time

import keras
import numpy as np
import pytest
from conftest import numbers, refused_in_one_line

from shared.errors import Interrupted
from shared.training import timing
from shared.training.batches import SeededBatches, SeededSteps
from shared.training.best_weights import BestWeights
from shared.training.checkpoint import Checkpoint, CheckpointStore
from shared.training.checkpointing import Checkpointing
from shared.training.divergence import DivergenceCheck
from shared.training.history import EpochHistory
from shared.training.recorder import Recorder
from shared.training.stopping import StopRequest
from shared.training.timing import StepTimer, processor_seconds

IDENTITY = {"recipe": "some"}


class Points(SeededBatches):
    """Seeded noise in, the sum of it out."""

    batch_size = 8
    batches_per_epoch = 3

    def __init__(self):
        super().__init__(seed=0)
        self.made = []

    def make_batch(self, index, rng):
        self.made.append((self.epoch, index))
        x = rng.normal(size=(8, 2)).astype("float32")
        return x, x.sum(axis=1, keepdims=True)


def linear(rate=0.1):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="ones")])
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), "mse", metrics=["mae"])
    model.optimizer.build(model.trainable_variables)
    return model


def fit(model, batches, callbacks, epochs=1, **arguments):
    model.fit(batches, epochs=epochs, callbacks=callbacks, verbose=0, shuffle=False, **arguments)


def checkpointing(path, state, batches, seconds=60.0):
    path.mkdir(exist_ok=True)
    store = CheckpointStore(path, IDENTITY)
    return Checkpointing(
        state=state,
        store=store,
        batches=batches,
        history=EpochHistory(path / "history.csv"),
        divergence=DivergenceCheck(batches, store, "try another"),
        stop=StopRequest(),
        seconds=seconds,
        stop_message="saved; go on",
    )


def test_each_epoch_and_step_is_seeded(monkeypatch):
    streams, batches = [], Points()
    monkeypatch.setattr("shared.training.batches.seed_step", lambda rng: streams.append(rng.integers(2**32)))
    fit(linear(), batches, [SeededSteps(batches)], epochs=2)
    assert batches.made[-6:] == list(itertools.product(range(2), range(3)))  # Keras looks at a batch before
    assert len(set(streams)) == 6
    batches.first = 1
    again = SeededSteps(batches)
    again.on_epoch_begin(1)
    again.on_train_batch_begin(1)  # the second step that is left of an epoch entered at its second
    assert streams[-1] == streams[5]


@pytest.mark.once
def test_history_has_a_line_an_epoch_each_time_it_is_written(tmp_path):
    history = EpochHistory(tmp_path / "history.csv")
    history.write()
    assert not history.path.exists()
    for epoch in range(2):
        history.on_epoch_end(epoch, {"loss": 0.5 / (epoch + 1), "val_loss": 1.0})
        history.write()
    with open(history.path) as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"epoch": "1", "loss": "0.5", "val_loss": "1.0"},
        {"epoch": "2", "loss": "0.25", "val_loss": "1.0"},
    ]
    history.rows = history.rows[:1]  # as after a resume from an earlier checkpoint
    history.write()
    assert history.path.read_text().splitlines() == ["epoch,loss,val_loss", "1,0.5,1.0"]


@pytest.mark.once
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_for_a_stop_and_the_second_stops(capsys, number):
    stop, before = StopRequest(), signal.getsignal(number)
    with stop.by_signals():
        assert not stop.asked
        signal.raise_signal(number)
        assert stop.asked
        assert capsys.readouterr().err == "stopping after this step, to save; once more to stop at once\n"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before
    with pytest.raises(OSError), stop.by_signals():
        raise OSError
    assert signal.getsignal(number) is before


@pytest.mark.once
def test_signals_are_left_alone_in_another_thread():
    stop, before, seen = StopRequest(), signal.getsignal(signal.SIGTERM), []

    def work():
        with stop.by_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


class Result:
    """A loss on the device, until somebody waits for it."""

    def __init__(self, value=1.0):
        self.value = value
        self.read = False

    def __float__(self):
        self.read = True
        return self.value


@pytest.fixture
def clock(monkeypatch):
    """A clock that shows what is set, while two threads work."""
    clock = {"now": 0.0}
    monkeypatch.setattr(time, "perf_counter", lambda: clock["now"])
    monkeypatch.setattr(timing, "processor_seconds", lambda: 2 * clock["now"])
    return clock


@pytest.mark.once
@pytest.mark.parametrize("wait", [False, True])
def test_steps_are_timed_without_validation_and_the_first_by_itself(clock, wait):
    batches = Points()
    timer = StepTimer(batches, wait)
    assert timer.examples_per_second() is timer.data_fraction() is timer.start_seconds is None
    assert timer.processor_seconds_per_step() is None
    timer.on_epoch_begin(0)
    clock["now"] = 5.0
    batches.seconds = 4.0  # making the first batch
    timer.on_train_batch_end(0, {"loss": Result()})
    assert timer.examples_per_second() is timer.data_fraction() is None
    assert timer.start_seconds > 0
    assert timer.start_processor_seconds == 10.0
    batches.seconds += 0.5
    for now in (6.0, 8.0):
        clock["now"] = now
        timer.on_train_batch_end(1, {"loss": (loss := Result())})
        assert loss.read == wait
    clock["now"] = 8.5  # the device ends the last step
    timer.on_test_begin()
    clock["now"] = 20.0
    timer.on_epoch_end(0)
    clock["now"] = 30.0
    timer.on_epoch_begin(1)
    clock["now"] = 31.5
    timer.on_train_batch_end(0, {"loss": Result()})
    timer.on_epoch_end(1)
    assert timer.step_seconds == [5.0, 1.0, 2.5, 1.5]
    assert timer.step_processor_seconds == [10.0, 2.0, 5.0, 3.0]
    assert timer.processor_seconds_per_step() == 10.0 / 3
    assert timer.examples_per_second() == 3 * 8 / 5.0
    assert timer.data_fraction() == 0.5 / 5.0


@pytest.mark.once
def test_processor_time_is_that_of_this_process():
    assert 0 < processor_seconds() <= sum(os.times()[:4])


def test_a_loss_is_read_after_the_next_step_or_before_a_checkpoint(tmp_path):
    batches, store = Points(), CheckpointStore(tmp_path, IDENTITY)
    check = DivergenceCheck(batches, store, "try another")
    good, bad = {"loss": Result(), "mae": Result(float("nan"))}, {"loss": Result(float("inf"))}
    batches.epoch, batches.first = 2, 1
    check.on_train_batch_end(0, good)
    assert not good["loss"].read
    check.on_train_batch_end(1, bad)
    assert good["loss"].read and not bad["loss"].read
    with refused_in_one_line("loss is inf after step 3 of epoch 3; there is no checkpoint yet: try another"):
        check.check_losses()
    store.save(7, Checkpoint({}, {}))
    with refused_in_one_line("after step 3 of epoch 3; the last good checkpoint is"):
        check.on_train_batch_end(2, good)


def test_a_weight_that_is_no_number_is_named(tmp_path):
    model = linear()
    check = DivergenceCheck(Points(), CheckpointStore(tmp_path, IDENTITY), "try another")
    arrays = {"model/0000": np.ones(2), "model/0001": np.zeros(1)}
    check.check_weights({"model": model}, arrays)
    with refused_in_one_line(f"the weight {model.weights[1].path} is not finite"):
        check.check_weights({"model": model}, arrays | {"model/0001": np.array([np.nan])})


def test_checkpoints_are_saved_at_each_step_or_at_the_end_of_the_epoch(tmp_path):
    for name, seconds, steps in (("each", 0, [5, 6]), ("ends", 60, [3, 6])):
        batches = Points()
        model = linear()
        checkpoints = checkpointing(tmp_path / name, model, batches, seconds)
        fit(model, batches, [SeededSteps(batches), checkpoints.history, checkpoints], epochs=2)
        assert [path.name for path in checkpoints.store.paths()] == [f"step-{step:09}.npz" for step in steps]
        assert len((tmp_path / name / "history.csv").read_text().splitlines()) == 3
        assert checkpoints.train_seconds > 0


class Asking(keras.callbacks.Callback):
    """Asks for a stop in a step."""

    def __init__(self, stop, batch):
        super().__init__()
        self.stop, self.batch = stop, batch

    def on_train_batch_end(self, batch, logs=None):
        self.stop.asked = batch == self.batch


def test_a_stopped_run_resumes_at_the_next_step_with_the_same_metrics(tmp_path):
    def trained(path, stop_in=None, first=0, restored=False):
        model, batches = linear(), Points()
        checkpoints = checkpointing(path, model, batches)
        if restored:
            assert checkpoints.restore() == (0, first)
        batches.first = first
        history = fit_and_history(model, batches, checkpoints, stop_in)
        return model, batches, history

    def fit_and_history(model, batches, checkpoints, stop_in):
        asking = [] if stop_in is None else [Asking(checkpoints.stop, stop_in)]
        callbacks = [SeededSteps(batches), *asking, checkpoints.history, checkpoints]
        if stop_in is None:
            fit(model, batches, callbacks)
        else:
            with pytest.raises(Interrupted, match="saved; go on"):
                fit(model, batches, callbacks)
        return checkpoints.history.rows

    expected, _, whole = trained(tmp_path / "whole")
    trained(tmp_path / "parts", stop_in=1)
    actual, batches, parts = trained(tmp_path / "parts", first=2, restored=True)
    assert batches.made[-1] == (0, 2)
    assert parts == whole  # the loss and the error are means over all of the epoch
    for ours, there in zip(actual.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, there)


def test_what_was_trained_is_set_to_the_last_checkpoint_again(tmp_path):
    model, batches = linear(), Points()
    checkpoints = checkpointing(tmp_path, model, batches)
    assert checkpoints.restore() == (0, 0)
    checkpoints.save(0, 0)
    before = model.get_weights()
    model.set_weights([weight + 1 for weight in before])
    checkpoints.assign("metrics")
    np.testing.assert_array_equal(numbers(model.weights[0].value), before[0] + 1)
    checkpoints.assign()
    np.testing.assert_array_equal(numbers(model.weights[0].value), before[0])


def test_nothing_is_saved_that_is_not_finite(tmp_path):
    model, batches = linear(), Points()
    checkpoints = checkpointing(tmp_path, model, batches)
    model.set_weights([np.full((2, 1), np.inf), np.zeros(1)])
    with refused_in_one_line("is not finite"):
        checkpoints.save(0, 1)
    assert list(tmp_path.iterdir()) == []


def best_weights(path, model, losses, patience=2):
    """With the history of epochs that had these validation losses, each told of, and the bias set to the epoch."""
    history = EpochHistory(path / "history.csv")
    best = BestWeights(model, CheckpointStore(path, IDENTITY), history, patience)
    best.set_model(model)
    model.stop_training = False
    for epoch, loss in enumerate(losses):
        model.set_weights([np.ones((2, 1)), np.full(1, epoch)])
        history.on_epoch_end(epoch, {"val_loss": loss})
        best.on_epoch_end(epoch)
    return best


@pytest.mark.parametrize(
    ("losses", "epoch", "stops"),
    [
        ([3.0, 2.0, 1.0], 2, False),
        ([3.0, 1.0, 1.0, 2.0], 1, True),
        ([3.0, 1.0, float("nan")], 1, False),
        ([float("nan"), 2.0], 1, False),
    ],
)
def test_training_stops_out_of_patience_and_ends_with_the_best_weights(tmp_path, losses, epoch, stops):
    model = linear()
    best = best_weights(tmp_path, model, losses)
    assert best.out_of_patience() == model.stop_training == stops
    best.restore()
    assert model.get_weights()[1] == epoch
    other = BestWeights(model, CheckpointStore(tmp_path, IDENTITY), best.history, 1)  # as after a resume
    assert other.best_epoch() == epoch
    best.path.write_bytes(b"torn")
    with refused_in_one_line("is damaged"):
        other.restore()


def test_before_the_first_epoch_there_is_patience(tmp_path):
    history = EpochHistory(tmp_path / "history.csv")
    assert not BestWeights(linear(), CheckpointStore(tmp_path, IDENTITY), history, 1).out_of_patience()


def test_callbacks_are_called_in_the_required_order(tmp_path):
    model, batches = linear(), Points()
    recorder = Recorder(
        state=model,
        store=CheckpointStore(tmp_path, IDENTITY),
        batches=batches,
        history_path=tmp_path / "history.csv",
        checkpoint_seconds=60.0,
        stop_message="saved",
        remedy="try another",
        patience=1,
    )
    held_out = batches[0]
    fit(model, batches, recorder.callbacks, validation_data=held_out)
    assert [row["epoch"] for row in recorder.history] == [1]
    assert (tmp_path / "history.csv").exists() and (tmp_path / "best.npz").exists()
    restored = CheckpointStore(tmp_path, IDENTITY).read(
        tmp_path / "step-000000003.npz", {"model/0000": (2, 1), "model/0001": (1,)} | optimizer_shapes(model)
    )
    assert restored.facts["history"] == recorder.history
    assert len(recorder.timer.step_seconds) == 3


def optimizer_shapes(model):
    variables = model.optimizer.variables
    return {f"optimizer/{number:04}": tuple(variable.shape) for number, variable in enumerate(variables)}
