"""The families of convolutional networks as people use them: options, a shortened epoch, the table of architectures."""

import json
import runpy

import pytest
from conftest import PROJECT, refused_in_one_line

from recipes.cnn_families import Config, main
from shared.tools import architectures
from shared.training.options import parse_options
from shared.training.run import Run


@pytest.mark.once
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "resnet21"}, "--architecture must be one of lenet5, alexnet, vgg11, "),
        ({"architecture": "vgg11"}, "--architecture must take images of 28 pixels, or add --image-size 32, not vgg11"),
        ({"epoch_steps": 0}, "--epoch-steps must be at least 1"),
        ({"batch_size": 1501}, "--batch-size must be at most the 1500 training images"),
        ({"crop": 28}, "--crop must be below the image size, 28"),
    ],
)
def test_options(changes, message):
    with refused_in_one_line(message):
        Config.for_preset("test", **changes).load()


@pytest.mark.in_turn
def test_epochs_of_a_few_steps(tmp_path):
    options = {"architecture": "lenet5", "optimizer": "adamw", "epoch_steps": 10, "epochs": 3, "learning_rate": 2e-3}
    metrics = main(Run(Config.for_preset("test", out=tmp_path / "run", **options), "cnn_families"))
    result = json.loads((tmp_path / "run/result.json").read_text(encoding="utf-8"))
    assert (result["architecture"], result["epochs"]) == ("lenet5", 3)
    assert result["passes"] == 3 * 10 * 50 / 1500
    assert result["step_processor_seconds"] > 0
    assert len((tmp_path / "run/history.csv").read_text(encoding="utf-8").splitlines()) == 4
    assert metrics["top1"] == result["value"] > 0.3


@pytest.mark.once
def test_the_table_of_architectures(tmp_path, monkeypatch):
    monkeypatch.setattr(architectures, "PROJECT", tmp_path)
    monkeypatch.setattr(architectures, "read_records", lambda recipe: [])
    assert architectures.architectures_table("some") == "Not yet measured."
    published = {"parameters": 0.27, "multiply_adds": None, "top1": 92.6}
    facts = {"parameters": 272474, "multiply_adds": 40_813_184, "published": published, "source": "somebody"}
    small = facts | {"multiply_adds": 651_720, "published": published | {"top1": None, "multiply_adds": 0.65}}
    (tmp_path / "results/architectures").mkdir(parents=True)
    for backend, found in {"jax": {"a": facts}, "torch": {"a": facts, "b": small}}.items():
        found = {name: each | {"milliseconds": 4.4} for name, each in found.items()}
        written = {"backend": backend, "architectures": found}
        (tmp_path / f"results/architectures/{backend}.json").write_text(json.dumps(written))
    run = {"architecture": "a", "value": 0.5, "passes": 1.25, "options": {"epoch_steps": "100"}}
    monkeypatch.setattr(architectures, "read_records", lambda recipe: [run, run | {"options": {}, "value": 0.9}])
    columns = "architecture | parameters | published | multiply-adds | published | step, jax | step, torch | "
    assert architectures.architectures_table("some").splitlines() == [
        f"| {columns}top-1 at the budget | passes | top-1 published | published by |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        "| b | 0.27247 M | 0.27 M | 0.65172 M | 0.65 M | – | 4 ms | – | – | – | somebody |",
        "| a | 0.27247 M | 0.27 M | 40.813 M | – | 4 ms | 4 ms | 0.5000 | 1.2 | 0.9260 | somebody |",
    ]


@pytest.mark.in_turn
def test_the_benchmark_measures_a_step():
    benchmark = runpy.run_path(str(PROJECT / "benchmarks/architectures.py"))
    found = benchmark["measured"]("lenet5", steps=1)
    assert (found["parameters"], found["multiply_adds"]) == (62_006, 651_720)
    assert found["milliseconds"] > 0
    for milliseconds, (epochs, steps) in {1000: (1, 180), 30: (4, 1500)}.items():
        command = benchmark["command_at_budget"]("resnet20", milliseconds)
        config = parse_options(Config, command.split()[2:])
        assert (config.architecture, config.epochs, config.epoch_steps) == ("resnet20", epochs, steps)
