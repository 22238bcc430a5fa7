"""The character model: as people run it, and what its numbers mean."""

import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from conftest import PROJECT, refused_in_one_line

from recipes.lstm_text import Config, build_model, build_optimizer
from shared.data.text.characters import UNKNOWN_CHARACTER, load_text
from shared.errors import UsageError
from shared.text.batches import TextBatches
from shared.text.language_model import CharacterWriter, first_states, nats_a_character, read_on
from shared.tools.predict import predict_from
from shared.training.options import parse_options

ALPHABET = UNKNOWN_CHARACTER + "\nabcdefgh"
VERSE = "Roses are red, violets are blue,\nsugar is sweet, and so are you.\n" * 100
TINY = (
    "--preset", "smoke", "--epochs", "5", "--units", "32", "--embedding", "8", "--window", "16", "--length", "60",
    "--data", "verse.txt",
)  # fmt: skip


@pytest.fixture(params=["lstm", "gru"])
def model(request):
    config = Config.for_preset("smoke", cell=request.param, units=12, embedding=6, depth=2, dropout=0.5)
    model = build_model(config, len(ALPHABET))
    for index, variable in enumerate(model.trainable_variables):
        variable.assign(np.random.default_rng(index).normal(size=variable.shape))
    return model


def codes(length, seed=0):
    return np.random.default_rng(seed).integers(1, len(ALPHABET), length).astype("uint16")


def log_softmax(x):
    x = x.astype("float64")
    return x - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True)) - x.max(-1, keepdims=True)


def test_the_state_is_carried_all_the_way(model):
    text = codes(57)
    logits = keras.ops.convert_to_numpy(model(text[None, :-1].astype("int32")))[0]
    expected = -log_softmax(logits)[np.arange(56), text[1:]].mean()
    for block in (1, 10, 56, 100):  # one that divides the text, some that do not
        assert nats_a_character(model, text, block) == pytest.approx(expected, rel=1e-4)


def test_reading_in_parts_is_reading_as_a_whole(model):
    text = codes(20)[None].astype("int32")
    whole, final = read_on(model, text, first_states(model))
    states, parts = first_states(model), []
    for part in (text[:, :1], text[:, 1:13], text[:, 13:]):
        logits, states = read_on(model, part, states)
        parts.append(keras.ops.convert_to_numpy(logits))
    np.testing.assert_allclose(np.concatenate(parts, axis=1), keras.ops.convert_to_numpy(whole), rtol=1e-4, atol=1e-4)
    for a, b in zip(keras.tree.flatten(states), keras.tree.flatten(final), strict=True):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b), rtol=1e-4, atol=1e-4)


def test_what_is_written_is_what_the_whole_text_says(model):
    """Greedily written, each character is the likeliest after all those before it."""
    written = "".join(CharacterWriter(model, ALPHABET)("abc?", 12, seed=0, temperature=0))
    assert len(written) == 12
    text = [ALPHABET.index(character) for character in "abc" + written]
    logits = keras.ops.convert_to_numpy(model(np.array([text], "int32")))[0]
    assert (logits[2:-1, 1:].argmax(axis=1) + 1).tolist() == text[3:]


def test_a_seed_writes_the_same_and_another_seed_something_else(model):
    texts = ["".join(CharacterWriter(model, ALPHABET)("", 30, seed)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert UNKNOWN_CHARACTER not in "".join(texts)


def test_a_seed_writes_the_same_on_every_backend(model):
    """Computed in NumPy from the same weights and random numbers."""
    expected = {
        "lstm": "ghbgbhbhhgdhggfhehbgbgghgghhhadbgfhghhge",
        "gru": "dhchbhbhhhbghgggggbgdbgggbhhhbfhhhhhhhgf",
    }["lstm" if isinstance(model.layers[2], keras.layers.LSTM) else "gru"]
    assert "".join(CharacterWriter(model, ALPHABET)("abc", 40, seed=7, temperature=1.2)) == expected


def test_a_character_costs_the_same_at_any_length_and_compiles_once(model, monkeypatch):
    lengths = []
    embedding = model.layers[1]
    call = embedding.call
    monkeypatch.setattr(embedding, "call", lambda x: lengths.append(x.shape) or call(x))
    writer = CharacterWriter(model, ALPHABET)
    assert len("".join(writer("abcabc", 20, seed=0))) == 20
    assert len("".join(writer("abc", 7, seed=0))) == 7
    assert set(lengths) == {(1, 1)}
    assert len(lengths) == (2 if keras.config.backend() == "torch" else 1)  # once as it is, once recorded; one program


def test_writing_nothing(model):
    assert list(CharacterWriter(model, ALPHABET)("abc", 0, seed=0)) == []


@pytest.mark.skipif(keras.config.backend() != "torch", reason="the native baseline is in PyTorch")
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_native_baseline_trains_as_keras_does(cell):
    config = Config.for_preset("smoke", cell=cell, units=12, embedding=6, depth=2, batch_size=4, window=16)
    batches = TextBatches(codes(2000), config.window, config.batch_size, seed=0)
    model = build_model(config, len(ALPHABET))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(build_optimizer(config, steps=20), loss)
    trainer = runpy.run_path(str(PROJECT / "benchmarks" / "lstm_text_torch.py"))["Trainer"](config, model, 20)
    for index in range(6):
        model.reset_metrics()
        ours, theirs = (float(each.train_on_batch(*batches[index])) for each in (model, trainer))
        assert ours == pytest.approx(theirs, rel=1e-4)
    for a, b in zip(model.get_weights(), trainer.weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(keras.config.backend() != "torch", reason="the native baseline is in PyTorch")
def test_the_native_baseline_writes_the_same_text(model):
    native = runpy.run_path(str(PROJECT / "benchmarks" / "lstm_text_torch.py"))
    writers = (kind(model, ALPHABET) for kind in (CharacterWriter, native["CharacterWriter"]))
    ours, theirs = ("".join(writer("abc", 40, 7, 1.2, 0, 1.0)) for writer in writers)
    assert ours == theirs
    for options, needed in (({"top_k": 3}, "--top-k 0"), ({"temperature": 0.0}, "--temperature 1")):
        with pytest.raises(UsageError, match=needed):
            native["Trainer"](Config.for_preset("smoke", **options), model, 20)


@pytest.mark.once
def test_learns_a_verse_and_writes_from_it(run_recipe, tmp_path, capsys):
    (tmp_path / "verse.txt").write_text(VERSE, encoding="utf-8")
    first = run_recipe("lstm_text", *TINY, "--cell", "gru", "--target", "2.5", "--out", "run", check=0)
    result = json.loads(first.stdout.splitlines()[-1].removeprefix("result "))
    assert result == json.loads((tmp_path / "run/result.json").read_text())
    assert result["metric"] == "validation_nats"
    assert result["value"] == result["metrics"]["validation_nats"] < 2.5 < np.log(len(set(VERSE)))
    assert result["metrics"]["test_perplexity"] == pytest.approx(np.exp(result["metrics"]["test_nats"]))
    assert (result["data"], result["state"]) == ("verse.txt", "carried")
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files == {
        *("checkpoint", "config.json", "history.csv", "result.json", "model.keras", "curves.png", "samples.txt"),
    }
    sample = (tmp_path / "run/samples.txt").read_text(encoding="utf-8")
    assert len(sample) == 61
    assert set(sample) <= set(VERSE)
    assert sample.strip() in first.stdout

    predict_from(tmp_path / "run", ["Roses 猫", "--length", "40", "--temperature", "1.5", "--sample-seed", "1"])
    out, err = capsys.readouterr()
    assert "left out, not in the training text: '猫'" in err
    model = keras.saving.load_model(tmp_path / "run/model.keras")
    expected = "".join(CharacterWriter(model, result["alphabet"])("Roses ", 40, seed=1, temperature=1.5))
    assert out == f"Roses 猫{expected}\n"
    with refused_in_one_line("--top-p must be above 0"):
        predict_from(tmp_path / "run", ["Roses", "--top-p", "0"])


def loaded(config):
    return config.limited(load_text(config.data, config.data_dir))


def start(tmp_path, *arguments):
    script = PROJECT / "recipes" / "lstm_text.py"
    return subprocess.Popen(
        [sys.executable, script, *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
@pytest.mark.in_turn
@pytest.mark.parametrize(("cell", "step"), [("gru", 3), ("lstm", 14), ("lstm", 24)])
def test_killed_and_resumed_ends_with_the_same_bits(run_recipe, tmp_path, cell, step):
    (tmp_path / "verse.txt").write_text(VERSE, encoding="utf-8")
    options = (*TINY, "--cell", cell, "--depth", "2", "--dropout", "0.3", "--checkpoint-seconds", "0")
    process = start(tmp_path, *options, "--out", "killed")
    checkpoints = tmp_path / "killed/checkpoint"
    while not any(int(path.stem.removeprefix("step-")) >= step for path in checkpoints.glob("step-*.npz")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed/model.keras").exists()
    run_recipe("lstm_text", *options, "--out", "killed", "--resume", check=0)
    run_recipe("lstm_text", *options, "--out", "whole", check=0)
    ours, theirs = (keras.saving.load_model(tmp_path / run / "model.keras") for run in ("killed", "whole"))
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (tmp_path / "killed/samples.txt").read_bytes() == (tmp_path / "whole/samples.txt").read_bytes()


@pytest.mark.once
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--data", "short.txt"), "short.txt has only 12 characters: at least 1,000 are needed"),
        (("--data", "latin.txt"), "latin.txt, line 1: byte 0xfc is not UTF-8"),
        (
            ("--window", "5000"),
            "--window must be at most 324 for this text (and then --batch-size at most 17), not 5000",
        ),
        (("--batch-size", "900"), "--batch-size must be at most the"),
        (("--top-p", "0"), "--top-p must be above 0"),
        (("--dropout", "1"), "--dropout must be at least 0 and below 1"),
    ],
)
def test_mistakes_get_one_line(monkeypatch, tmp_path, options, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_RECIPES_CACHE", str(tmp_path / "cache"))
    (tmp_path / "verse.txt").write_text(VERSE, encoding="utf-8")
    (tmp_path / "short.txt").write_text("not so long\n")
    (tmp_path / "latin.txt").write_bytes("für immer\n".encode("latin-1") * 500)
    with pytest.raises(UsageError, match=re.escape(message)) as error:
        loaded(parse_options(Config, [*TINY, *options]))
    assert "\n" not in str(error.value)


@pytest.mark.once
def test_what_is_found_and_used_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_RECIPES_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text("ab\n" * 1000)
    options = {"data": str(tmp_path / "text.txt"), "window": 50, "batch_size": 4}
    found = (
        "text.txt: 3,000 characters, 3 different: 2,700 for training, 150 for validation, 150 for testing; "
        "nothing passed over"
    )
    assert loaded(Config(**options)).found == found
    few = loaded(Config(**options, train_characters=1000, test_characters=60)).found
    assert few == f"{found}; used are 1,000 of train, 60 of validation, 60 of test"
