"""Experiment tracking: what each tracker has of a run, read by its own means; kills, resumes and failures."""

import json
import os
import re
import shutil
import signal
import socket
import sys
import types
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import PROJECT, refused_in_one_line
from keras import ops
from matplotlib.figure import Figure
from PIL import Image
from test_training import Config, Points, Stopping, held_out_points, make_model

from shared.backends.gradients import minimize
from shared.backends.steps import compiled_step
from shared.errors import Interrupted
from shared.tools.track import track_run
from shared.training.options import Options, parse_options
from shared.training.run import Run
from shared.training.tracking.mlflow import MlflowTracker
from shared.training.tracking.tensorboard import TensorBoardTracker
from shared.training.tracking.tracker import TRACKERS
from shared.training.tracking.wandb import WandbTracker, history_in, records_in

ALL = ",".join(TRACKERS)


@pytest.fixture(autouse=True)
def without_network(monkeypatch, tmp_path):
    """Fails a test in which this process connects to anything but a socket of this machine's file system."""

    def connect(self, address, connect=socket.socket.connect):
        assert self.family == socket.AF_UNIX, f"connects to {address}"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
    for name in ("WANDB_MODE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "wandb-data"))


def seen_in_tensorboard(directory, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.compat.notf", types.ModuleType("notf"))  # reads without TensorFlow
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory / "tensorboard"), {"scalars": 0, "images": 0}).Reload()
    tags = events.Tags()
    text = {tag: "".join(e.tensor_proto.string_val[0].decode() for e in events.Tensors(tag)[-1:])
            for tag in tags["tensors"] if not tag.startswith("_hparams_")}  # fmt: skip
    facts = {tag: json.loads(shown.removeprefix("```json\n").removesuffix("\n```")) for tag, shown in text.items()}
    return {
        "scalars": {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags["scalars"]},
        "options": {name: str(value) for name, value in facts["run"]["options"].items()},
        "commit": facts["run"]["commit"],
        "figures": {f"{tag}.png": [e.encoded_image_string for e in events.Images(tag)] for tag in tags["images"]},
        "result": facts.get("result"),
        "hparams": "_hparams_/session_start_info" in events.summary_metadata,
    }


def seen_in_mlflow(directory, monkeypatch):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{directory.parent / 'mlflow.db'}")
    identity = json.loads((directory / "tracking.json").read_text())["id"]
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    [run] = client.search_runs(experiments, f"tags.keras_recipes_run = '{identity}'")
    names = [name for name in run.data.metrics if name.rpartition("/")[2] != "epoch"]
    there = directory / "nothing"
    if client.list_artifacts(run.info.run_id):
        there = Path(client.download_artifacts(run.info.run_id, ""))
    result = there / "result.json"
    return {
        "scalars": {name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
                    for name in names if name != "result/epochs"},
        "options": run.data.params,
        "commit": run.data.tags["mlflow.source.git.commit"],
        "figures": {
            path.with_suffix(".png").name: [each.read_bytes() for each in sorted(path.glob("*")) or [path]]
            for path in there.glob("figures/*")
        },
        "result": json.loads(result.read_text()) if result.exists() else None,
        "status": run.info.status,
        "model": [path.read_bytes() for path in there.glob("model.keras")],
    }  # fmt: skip


def seen_in_wandb(directory, monkeypatch):
    from wandb.proto.wandb_internal_pb2 import Record

    identity = json.loads((directory / "tracking.json").read_text())["id"]
    seen = {"scalars": {}, "options": {}, "figures": {}, "model": []}
    for row in history_in(directory / "wandb", identity):
        for name, value in row.items():
            if name.startswith("figures/") and name.endswith("/path"):
                [path] = directory.glob(f"wandb/offline-run-*/files/{value}")
                figure = name.removeprefix("figures/").removesuffix("/path") + ".png"
                seen["figures"].setdefault(figure, []).append(path.read_bytes())
            elif not name.startswith(("_", "figures/")) and name.rpartition("/")[2] != "epoch":
                epoch = row[f"{name.rpartition('/')[0]}/epoch".lstrip("/")]
                seen["scalars"].setdefault(name, []).append((epoch, value))
    summary = {}
    for path in sorted(directory.glob(f"wandb/offline-run-*/run-{identity}.wandb")):
        for record in map(Record.FromString, records_in(path)):
            if record.HasField("run"):
                config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
                seen["commit"] = str(config["commit"])
                seen["options"] = {name: str(value) for name, value in config.items()}
            summary |= {item.key: json.loads(item.value_json) for item in record.summary.update}
            if record.HasField("artifact") and record.artifact.type == "model":
                seen["model"] += [Path(each.local_path).read_bytes() for each in record.artifact.manifest.contents]
    seen["result"] = json.loads(summary.get("result", "null"))
    for name, value in summary.items():
        if name.startswith("result/"):
            seen["scalars"][name] = [(seen["result"]["epochs"], value)]
    return seen


SEEN = {"tensorboard": seen_in_tensorboard, "mlflow": seen_in_mlflow, "wandb": seen_in_wandb}


def train(config, stop_after=None):
    """Two phases, a figure and a result; with `stop_after`, a signal arrives during that step of the second."""
    run, model = Run(config, "points"), make_model(config)
    arguments = {"validation_data": held_out_points()}
    run.fit(model, Points(1), "points", phase="head", epochs=2, **arguments)
    if stop_after:
        with pytest.raises(Interrupted):
            run.fit(model, Points(0), "points", callbacks=[Stopping(stop_after)], **arguments)
        return run
    run.fit(model, Points(0), "points", **arguments)
    run.save_figure("curves.png", Figure())
    run.finish(model, "points", "score", {"score": 0.5})
    return run


def assert_whole(tracker, run, monkeypatch):
    """What a tracker has is what history.csv, config.json and result.json say, each epoch once."""
    seen = SEEN[tracker](run.directory, monkeypatch)
    expected = {}
    for phase, recorder in run.recorders.items():
        for row in recorder.history:
            for name in row.keys() - {"epoch"}:
                expected.setdefault(f"{phase}/{name}".lstrip("/"), []).append((row["epoch"], row[name]))
    result = json.loads((run.directory / "result.json").read_text()) if (run.directory / "result.json").exists() else {}
    for name, value in result.get("metrics", {}).items():
        expected[f"result/{name}"] = [(result["epochs"], value)]
    assert seen["scalars"].keys() == expected.keys()
    for name, values in expected.items():
        assert [epoch for epoch, _ in seen["scalars"][name]] == [epoch for epoch, _ in values], name
        np.testing.assert_allclose([v for _, v in seen["scalars"][name]], [v for _, v in values], rtol=1e-6)
    facts = json.loads((run.directory / "config.json").read_text())
    options = {name: str(value) for name, value in facts["options"].items()}
    assert options.items() <= seen["options"].items()
    assert seen["commit"] == str(facts["commit"])
    assert (seen["result"] or {}) == result
    figures = {path.name: [path.read_bytes()] for path in run.directory.glob("*.png")}
    assert seen["figures"] == figures
    return seen


@pytest.mark.in_turn
@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_tracker_has_the_options_epochs_figures_and_result(tracker, tmp_path, monkeypatch, capsys):
    run = train(Config(out=tmp_path / "run", track=tracker, track_model=True))
    seen = assert_whole(tracker, run, monkeypatch)
    assert set(seen["figures"]) == {"curves.png"}
    assert len(seen["scalars"]["val_loss"]) == 3
    assert len(seen["scalars"]["head/mae"]) == 2
    model = (run.directory / "model.keras").read_bytes()
    assert seen.get("model", [model]) == [model]
    assert seen.get("status", "FINISHED") == "FINISHED"
    assert seen.get("hparams", True)
    out = capsys.readouterr()
    assert f"tracked by {tracker}; to see it:  " in out.out
    assert out.out.splitlines()[-1].startswith("result ")
    assert "WARNING" not in out.err


@pytest.mark.once
@pytest.mark.parametrize("tracker", TRACKERS)
def test_sheets_of_each_epoch_are_one_figure(tracker, tmp_path, monkeypatch):
    run = Run(Config(out=tmp_path / "run", track=tracker, epochs=1), "points")
    run.fit(make_model(run.config), Points(0), "points")
    (run.directory / "epochs").mkdir()
    for epoch in (1, 2):
        path = run.directory / f"epochs/{epoch:04}.png"
        Image.new("L", (4, 4), 9 * epoch).save(path)
        run.tracking.figure(path, epoch, "epochs")
    run.finish(make_model(run.config), "points", "score", {"score": 0.5})
    expected = [path.read_bytes() for path in sorted(run.directory.glob("epochs/*"))]
    assert SEEN[tracker](run.directory, monkeypatch)["figures"] == {"epochs.png": expected}
    if tracker == "tensorboard":
        shutil.rmtree(run.directory / "tensorboard")
        assert track_run(run.directory, tracker, False)
        assert SEEN[tracker](run.directory, monkeypatch)["figures"] == {"epochs.png": expected}


@pytest.mark.in_turn
@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_stopped_and_extended_run_goes_on_in_the_same_run_of_the_tracker(tracker, tmp_path, monkeypatch):
    out = {"out": tmp_path / "run", "track": tracker}
    stopped = train(Config(**out, epochs=2), stop_after=7)  # in the second epoch
    assert len(assert_whole(tracker, stopped, monkeypatch)["scalars"]["loss"]) == 1
    train(Config(**out, epochs=2, resume=True))
    train(Config(**out, epochs=2, resume=True))  # with nothing left to train
    config = parse_options(Config, ["--out", str(tmp_path / "run"), "--resume"])
    assert config.track == tracker
    again = train(config)
    assert len(assert_whole(tracker, again, monkeypatch)["scalars"]["loss"]) == 2


@pytest.mark.once
@pytest.mark.parametrize("tracker", TRACKERS)
def test_tracking_can_begin_with_a_resume_and_with_more_epochs(tracker, tmp_path, monkeypatch):
    train(Config(out=tmp_path / "run", epochs=2), stop_after=7)
    run = train(Config(out=tmp_path / "run", epochs=2, resume=True, track=tracker))
    assert_whole(tracker, run, monkeypatch)
    train(Config(out=tmp_path / "run", epochs=3, resume=True, track=tracker))
    assert [epoch for epoch, _ in SEEN[tracker](run.directory, monkeypatch)["scalars"]["loss"]] == [1, 2, 3]


@pytest.mark.in_turn
@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_custom_step_is_tracked_too(tracker, tmp_path, monkeypatch):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    optimizer = keras.optimizers.SGD(0.01)
    optimizer.build(model.trainable_variables)

    @compiled_step
    def step(x, y):
        loss = minimize(optimizer, lambda: ops.mean(ops.square(model(x) - y)), model.trainable_variables)
        return {"loss": loss}

    run = Run(Config(out=tmp_path / "run", epochs=2, track=tracker), "points")
    state = {"model": model, "optimizer": optimizer}
    run.train(step, Points(0), state, "points", after_epoch=lambda epoch: {"quality": epoch / 2})
    run.finish(model, "points", "score", {"score": 0.5})
    seen = assert_whole(tracker, run, monkeypatch)
    assert seen["scalars"]["quality"] == [(1, 0.5), (2, 1.0)]


KILLED = """
import os, signal, sys
from pathlib import Path
from test_training import Config, Points, make_model, held_out_points
import keras
from shared.training.run import Run
from shared.training.tracking import tracking
point, resume = sys.argv[1:]

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

class InStep(keras.callbacks.Callback):
    steps = 0
    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        if point == "step" and self.steps == 12:  # in the third epoch
            kill()

def killing(method, before, epoch=2):
    def called(self, phase, row):
        if before and row["epoch"] == epoch:
            kill()
        method(self, phase, row)
        if row["epoch"] == epoch:
            kill()
    return called

if resume == "False":
    match point:
        case "before":
            tracking.TensorBoardTracker.scalars = killing(tracking.TensorBoardTracker.scalars, True)
        case "within":
            tracking.MlflowTracker.scalars = killing(tracking.MlflowTracker.scalars, False)
        case "after":
            tracking.WandbTracker.scalars = killing(tracking.WandbTracker.scalars, False)
config = Config(out=Path("run"), track="tensorboard,mlflow,wandb", resume=resume == "True")
run, model = Run(config, "points"), make_model(config)
callbacks = [InStep()] if resume == "False" else []
run.fit(model, Points(0), "points", validation_data=held_out_points(), callbacks=callbacks)
run.finish(model, "points", "score", {"score": 0.5})
"""


@pytest.mark.slow
@pytest.mark.in_turn
@pytest.mark.parametrize("point", ["step", "before", "within", "after"])
def test_killed_and_resumed_has_each_epoch_once(point, run_python, tmp_path, monkeypatch):
    path = os.pathsep.join(str(PROJECT / folder) for folder in ("", "tests", "tests/training"))
    killed = run_python("-c", KILLED, point, "False", PYTHONPATH=path)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    run_python("-c", KILLED, point, "True", PYTHONPATH=path, check=0)
    monkeypatch.chdir(tmp_path)
    run = Run(Config(out=tmp_path / "run", resume=True), "points")
    run.fit(make_model(run.config), Points(0), "points", validation_data=held_out_points())
    for tracker in TRACKERS:
        seen = assert_whole(tracker, run, monkeypatch)
        assert [epoch for epoch, _ in seen["scalars"]["loss"]] == [1, 2, 3]


@pytest.mark.once
@pytest.mark.parametrize(
    ("kind", "method"),
    [(MlflowTracker, "start"), (TensorBoardTracker, "scalars"), (WandbTracker, "figure"), (MlflowTracker, "finish")],
)
def test_a_tracker_that_fails_warns_once_and_the_run_ends_well(kind, method, tmp_path, monkeypatch, capsys):
    calls = []

    def fails(self, *arguments):
        calls.append(arguments)
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(kind, method, fails)
    config = Config(out=tmp_path / "run", epochs=2, track=ALL)
    run = train(config)
    name = {TensorBoardTracker: "tensorboard", MlflowTracker: "mlflow", WandbTracker: "wandb"}[kind]
    [warning] = re.findall(r"WARNING: .*", capsys.readouterr().err)
    assert f"tracking by {name} failed (no route)" in warning
    assert f"recipes track {run.directory} --to {name}" in warning
    assert len(calls) == 1
    assert json.loads((run.directory / "result.json").read_text())["value"] == 0.5
    for other in TRACKERS.keys() - {name}:
        assert_whole(other, run, monkeypatch)


@pytest.mark.once
def test_a_store_that_cannot_be_reached_is_a_warning(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://here")
    train(Config(out=tmp_path / "run", epochs=1, track="mlflow"))
    assert "WARNING: tracking by mlflow failed" in capsys.readouterr().err


@pytest.mark.once
@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_finished_run_is_sent_later_and_only_once(tracker, recipes_command, tmp_path, monkeypatch):
    run = train(Config(out=tmp_path / "run", epochs=2))
    recipes_command("track", "run", "--to", tracker, check=0)
    assert_whole(tracker, run, monkeypatch)
    recipes_command("track", "run", "--to", tracker, "--model", check=0)
    seen = assert_whole(tracker, run, monkeypatch)
    model = (run.directory / "model.keras").read_bytes()
    assert seen.get("model", [model]) == [model]


@pytest.mark.once
def test_wrong_use_of_track(recipes_command, run_recipe, hiding, tmp_path):
    with refused_in_one_line("--track must be of tensorboard, mlflow, wandb, separated by commas, not 'comet'"):
        Config(track="comet")
    process = recipes_command("track", ".", "--to", "mlflow")
    assert (process.returncode, process.stderr.count("\n")) == (2, 1)
    assert "holds no finished run" in process.stderr
    assert not (tmp_path / "tracking.json").exists()
    (tmp_path / "wandb").mkdir()  # as W&B leaves it, and a namespace package to Python
    for packages, extra in ((("wandb",), "wandb"), (("sqlalchemy",), "mlflow"), (("tensorboard",), "tensorboard")):
        away = hiding(*packages)
        away["PYTHONPATH"] += f":{PROJECT}"
        process = run_recipe("cnn_cifar10", "--preset", "test", "--track", extra, "--out", "run", **away)
        assert process.returncode == 2
        assert process.stderr.strip().splitlines()[-1] == (
            f'error: not installed: {packages[0]}: run  pip install -c constraints.txt -e ".[{extra}]"'
        )
        assert "Traceback" not in process.stderr
        assert not (tmp_path / "run").exists()


IMPORTED = """
import sys
from pathlib import Path
from test_training import Config, Points, make_model
from shared.training.run import Run
run = Run(Config(out=Path("run"), epochs=1, track=sys.argv[1]), "points")
model = make_model(run.config)
run.fit(model, Points(0), "points")
run.finish(model, "points", "score", {"score": 0.5})
print(*(name for name in sys.argv[2:] if name in sys.modules))
"""


@pytest.mark.once
@pytest.mark.parametrize("track", ["", "tensorboard"])
def test_tensorboard_needs_no_tensorflow_and_no_tracker_costs_nothing(track, run_python):
    path = os.pathsep.join(str(PROJECT / folder) for folder in ("", "tests", "tests/training"))
    process = run_python("-c", IMPORTED, track, "tensorflow", "tensorboard", "mlflow", "wandb", "sqlalchemy",
                         PYTHONPATH=path, KERAS_BACKEND="torch", check=0)  # fmt: skip
    assert process.stdout.splitlines()[-1] == track
    assert process.stderr.count("WARNING") == 0


@pytest.mark.once
def test_a_log_of_wandb_is_read_as_far_as_it_is_whole(tmp_path, monkeypatch):
    train(Config(out=tmp_path / "run", epochs=1, track="wandb"))
    identity = json.loads((tmp_path / "run/tracking.json").read_text())["id"]
    [path] = tmp_path.glob(f"run/wandb/offline-run-*/run-{identity}.wandb")
    whole, records = path.read_bytes(), list(records_in(path))
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        part = list(records_in(path))
        assert part == records[: len(part)]
    assert len(part) == len(records) - 1


def test_options_of_tracking_belong_to_no_experiment():
    assert Config(track=ALL, track_model=True).beside_preset() == {}
    assert {"track", "track_model"} <= {field for field in Options.__dataclass_fields__}
