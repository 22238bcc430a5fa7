"""The autoencoders: each kind learns, is evaluated and predicts; wrong use; recorded runs."""

import json

import keras
import numpy as np
import pytest
from conftest import numbers, refused_in_one_line
from PIL import Image

from recipes.autoencoder import Config, build_model, main, predictor
from shared.backends.optimizers import prepare_optimizer
from shared.backends.runtime import prepare_backend
from shared.data.images.datasets import ImageData, LabelledImages
from shared.generative.autoencoder.batches import AutoencoderBatches
from shared.generative.autoencoder.likelihood import negative_log_likelihood
from shared.generative.autoencoder.prior import CodePrior
from shared.tools.compare.worker import reordered
from shared.tools.exporting.formats import Request
from shared.tools.exporting.worker import export
from shared.tools.project import PROJECT
from shared.tools.records import read_records
from shared.tools.serving.engines import ENGINES
from shared.training.options import parse_options, write_config
from shared.training.predictors import FinishedRun, Picture, Pictures, signature_of
from shared.training.run import Run
from shared.training.saving import save_model

KINDS = pytest.mark.parametrize("kind", ["variational", "vector_quantized", "plain", "denoising"])


def stripes(examples=64):
    """Two classes of 8×8 images, stripes across and stripes down, in grey levels of their own."""
    rng, labels = np.random.default_rng(0), np.arange(examples) % 2
    levels = rng.integers(0, 256, (examples, 1, 8), np.uint8).repeat(8, axis=1)
    images = np.where(labels[:, None, None], levels, levels.swapaxes(1, 2))[..., None]
    data = LabelledImages(images, labels)
    return ImageData("stripes", ["down", "across"], data, data, data, [127.0], [74.0], True, "0")


def tiny(kind, **options):
    """Options of a network that trains in no time."""
    small = {"widths": (8, 8), "latent": 6, "codes": 16, "batch_size": 16, "learning_rate": 0.02}
    return Config.for_preset("smoke", kind=kind, **small | options)


@pytest.mark.in_turn
@KINDS
def test_a_few_steps_lower_the_loss_whatever_the_order_in_a_batch(kind):
    """And the codebook is part of the state, which moves in the training step alone."""
    found = []
    for seed in (None, 1):
        prepare_backend(0, "float32")
        config, data = tiny(kind), stripes()
        batches = AutoencoderBatches(data.train.images, 16, 0, **config.noise((8, 8, 1)))
        model = build_model(config, data)
        loss = negative_log_likelihood if kind == "variational" else "mse"
        model.compile(keras.optimizers.Adam(config.learning_rate), loss)
        prepare_optimizer(model)
        losses = []
        for number in range(24):
            batches.epoch, index = divmod(number, len(batches))
            batch = batches[index] if seed is None else reordered(batches[index], 0, seed)
            model.reset_metrics()
            losses.append(float(model.train_on_batch(*batch, return_dict=True)["loss"]))
        found.append(losses)
        # The likelihood of 256 levels begins near that of guessing, 5.5 nats a pixel, and does not go to 0.
        assert losses[-1] < (0.95 if kind == "variational" else 0.8) * losses[0]
        before = [numbers(variable).copy() for variable in model.non_trainable_variables]
        assert len(before) == 3 * (kind == "vector_quantized")
        model.test_on_batch(*batches[0])
        for variable, value in zip(model.non_trainable_variables, before, strict=True):
            assert np.abs(value).max() > 0
            np.testing.assert_array_equal(numbers(variable), value)
    np.testing.assert_allclose(found[1][:4], found[0][:4], rtol=1e-3)


@pytest.mark.in_turn
@pytest.mark.parametrize("kind", ["vector_quantized", "denoising"])
def test_a_run_of_another_kind_is_evaluated_and_predicts(kind, tmp_path, monkeypatch):
    """The variational kind, which is the default, goes through the contract."""
    monkeypatch.setattr("recipes.autoencoder.evaluation_network", lambda config, data: Network())
    monkeypatch.setattr(Config, "load", lambda config: stripes())
    options = {"epochs": 2, "prior_epochs": 1, "prior_channels": 8, "prior_depth": 1, "samples": 30, "sample_batch": 20}
    metrics = main(Run(tiny(kind, out=tmp_path / "run", **options)))
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert (result["metric"], result["kind"]) == ("reconstruction_mse", kind)
    assert {"linear_top1", "frechet", "frechet_reconstruction"} < metrics.keys()
    assert ("codebook_perplexity" in metrics) == (kind == "vector_quantized")
    figures = {path.name for path in (tmp_path / "run").glob("*.png")}
    own = "codebook.png" if kind == "vector_quantized" else "traversal.png"
    names = ("curves", "samples", "reconstructions", "latents", "interpolation")
    assert figures == {own, *(f"{name}.png" for name in names)}
    monkeypatch.undo()
    predict = predictor(FinishedRun(tmp_path / "run", Config))
    signature = signature_of(predict)
    assert signature.gives is Pictures
    if signature.takes is Picture:
        (picture,) = predict(Image.new("RGB", (30, 20), "navy"))
        assert picture.size == (8, 8)
    else:
        pictures = predict("", count=3)
        assert pictures == predict("", count=3)
        assert pictures != predict("", count=3, seed=1)
        assert [picture.size for picture in pictures] == [(8, 8)] * 3


@pytest.mark.only_on("tensorflow")
def test_an_exported_codebook_generates_without_keras(tmp_path, run_python, hiding):
    """The other kinds are exported as they are, or by the contract."""
    run, config = tmp_path / "run", tiny("vector_quantized")
    run.mkdir()
    write_config(run, "autoencoder", config)
    (run / "result.json").write_text(json.dumps({"metrics": {}, "classes": None}))
    model, codes = build_model(config, stripes()), keras.Input((4,), dtype="int32", name="codes")
    outputs = {"pixels": model.output, "logits": CodePrior(16, 8, 2, name="prior")(codes)}
    save_model(keras.Model({**model.input, "codes": codes}, outputs), run / "model.keras")
    about = run / "export/onnx/model.json"
    assert export(Request(run, "onnx", about.with_suffix(".onnx"))) == 0
    assert json.loads(about.read_text(encoding="utf-8"))["checked"]["largest_difference"] < 1e-4
    served, predict = ENGINES["onnx"](run).predict, predictor(FinishedRun(run, Config))
    found, expected = (np.array(each("", count=3, seed=1), int) for each in (served, predict))
    np.testing.assert_allclose(found, expected, atol=2)
    hidden = hiding("keras", "tensorflow", "torch", "jax", "shared")
    run_python(PROJECT / "docs/deploy/generate.py", about, "", tmp_path / "images.png", check=0, **hidden)
    with Image.open(tmp_path / "images.png") as images:
        assert images.size == (8 * 8, 8)
        assert np.std(np.asarray(images)) > 1


class Network:
    """An evaluation network whose features are pixels."""

    def __init__(self):
        self.facts = {"judge": "pixels"}

    def outputs(self, images):
        return {"features": images.reshape(len(images), -1)[:, ::4].astype(np.float32)}


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kind", "sparse"], "sparse"),
        (["--beta", "-1"], "--beta must be at least 0, not -1"),
        (["--codes", "1"], "--codes must be at least 2, not 1"),
        (["--latent", "0"], "--latent must be at least 1, not 0"),
        (["--codebook-decay", "1"], "--codebook-decay must be at least 0 and below 1"),
        (["--corruption", "0"], "--corruption must be above 0, not 0"),
        (["--widths", "8", "8", "8"], "--widths must be fewer, to halve 28 by 28"),
        (["--prior-channels", "6"], "--prior-channels must be a multiple of 4, not 6"),
        (["--batch-size", "5000"], "--batch-size must be at most the 3920 training images, not 5000"),
        (["--data", "nothing"], "no data set 'nothing'"),
    ],
)
def test_wrong_use(arguments, message):
    if "--data" not in arguments:
        arguments = ["--data", "mnist5k", *arguments]
    with refused_in_one_line(message):
        parse_options(Config, arguments).load()


@pytest.mark.once
def test_the_recorded_runs_are_as_good_as_stated():
    if not (records := read_records("autoencoder")):
        pytest.skip("not yet recorded")
    for record in records:
        metrics = record["metrics"]
        if record["kind"] == "variational":
            assert record["value"] == metrics["bits_per_dim"] > metrics["iwae_bits_per_dim"]
            assert metrics["elbo_nats"] == pytest.approx(-metrics["reconstruction_nats"] - metrics["kl_nats"])
            assert not record["posterior_collapsed"]
        if record["data"] == "fashion_mnist":
            assert metrics["linear_top1"] >= 0.8
        if record["data"] == "cifar10" and record["kind"] == "vector_quantized":
            assert metrics["codebook_perplexity"] >= 250
