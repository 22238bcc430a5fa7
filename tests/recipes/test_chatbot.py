"""The chatbot: its parts against slower ways to the same numbers, and the recipe as people run it."""

import csv
import io
import itertools
import json
import os
import runpy
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from conftest import PROJECT, refused_in_one_line
from keras import ops
from PIL import Image

from recipes.seq2seq_chatbot import Config, build_model, main, predictor
from shared.backends.compiling import compiled_inference
from shared.errors import UsageError
from shared.text.losses import Perplexity, SequenceLoss
from shared.text.metrics import distinct_n, word_perplexity
from shared.text.pairs import LengthBucket, SequencePairs, encoder_inputs, padded, padded_pairs
from shared.text.plots import drawable
from shared.text.responder import Answerer
from shared.text.subwords import END, PAD, START, UNKNOWN, Subwords, train_subwords
from shared.tools.predict import predict_from
from shared.tools.records import read_records
from shared.training.predictors import FinishedRun
from shared.training.run import Run
from shared.training.schedules import WarmupCosine

VOCABULARY = 30
KINDS = {
    "gru general": {"cell": "gru", "attention": "general"},
    "lstm additive": {"cell": "lstm", "attention": "additive"},
    "gru dot": {"cell": "gru", "attention": "dot"},
    "without attention": {"attend": False},
}
PAIRS = SequencePairs([[5, 6, 7, END, 8, 9], [10], [11, 12, 13, 14]], [[15, 16, 17, 18], [19, 20, 21, 22, 23], [24]])


def config(**changes):
    return Config.for_preset("smoke", width=6, units=8, context=8, answer=9, **changes)


def random_model(cell="gru", attention="general", attend=True):
    """With weights of its own at every place, and not so small that all logits are alike."""
    model = build_model(config(cell=cell, attention=attention), VOCABULARY, attend)
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(scale=0.7, size=weight.shape) for weight in model.weights])
    return model


def answerer(model, rows=3, **options):
    return Answerer(model, None, config(**options), turns=2, context=8, answer=9, rows=rows)


def whole(model):
    """The model as a function from its inputs to NumPy logits, compiled."""
    run = compiled_inference(lambda inputs: model(inputs, training=False), [model])
    return lambda inputs: ops.convert_to_numpy(run(inputs))


def batch(source=9, target=10, rows=3):
    return padded_pairs(PAIRS, np.arange(3), LengthBucket(source, target, rows))


@pytest.mark.in_turn
@pytest.mark.parametrize("kind", KINDS)
def test_step_by_step_or_all_at_once_with_more_or_less_padding(kind):
    model = random_model(**KINDS[kind])
    run, write = whole(model), answerer(model, beams=1)
    inputs, labels = batch()
    expected = run(inputs)

    step = compiled_inference(write.step, [model])
    states, context = write.encode(inputs["source"])
    for index in range(inputs["target"].shape[1]):
        logits, states = step(inputs["target"][:, index], np.int32(index), states, context)
        np.testing.assert_allclose(ops.convert_to_numpy(logits), expected[:, index], rtol=1e-4, atol=1e-5)

    longer, more_labels = batch(source=14, target=13, rows=5)
    found = []
    for said, logits in ((labels, expected), (more_labels, run(longer))):
        metric = Perplexity()
        metric.update_state(said, logits)
        loss = SequenceLoss(0.1)(said, ops.convert_to_tensor(logits))
        real = [row[: len(target) + 1] for row, target in zip(logits, PAIRS.targets, strict=False)]
        found.append([*real, ops.convert_to_numpy(loss), ops.convert_to_numpy(metric.result())])
    for short, long in zip(*found, strict=True):
        np.testing.assert_allclose(short, long, rtol=1e-4, atol=1e-5)

    other = {**inputs, "source": np.where(inputs["source"] == 6, 26, inputs["source"]).astype("int32")}
    difference = np.abs(expected - run(other)).max(axis=(1, 2))
    assert difference[0] > 1e-3  # only its source has a 6
    assert (difference[1:] < 1e-5).all()
    names = {layer.name for layer in model.get_layer("decoder").layers}
    assert ("attention" in names) == (kind != "without attention")


@pytest.mark.in_turn
def test_the_network_learns_a_batch_by_heart_and_not_only_how_frequent_each_token_is():
    keras.utils.set_random_seed(0)
    options = Config(dropout=0.0)
    rng = np.random.default_rng(0)
    sources, targets = ([(np.minimum(rng.zipf(1.3, 10), 3000) + END).tolist() for _ in range(32)] for _ in range(2))
    inputs, labels = padded_pairs(SequencePairs(sources, targets), np.arange(32), LengthBucket(12, 12, 32))
    model = build_model(options, options.vocabulary)
    optimizer = keras.optimizers.Adam(options.learning_rate, global_clipnorm=1.0)
    model.compile(optimizer, SequenceLoss(), metrics=[Perplexity()])
    for _ in range(50):
        model.reset_metrics()
        perplexity = model.train_on_batch(inputs, labels, return_dict=True)["perplexity"]
    frequencies = np.bincount(labels[labels != PAD]) / np.count_nonzero(labels)
    assert float(perplexity) < 0.3 * np.exp(-np.sum(frequencies * np.log(np.maximum(frequencies, 1e-9))))


def greedy(run, source, length):
    """The likeliest answer of at most so many tokens, the whole model run anew for each of them."""
    tokens = [START]
    while len(tokens) <= length:
        inputs = {"source": encoder_inputs([source], 9), "target": padded([tokens], 10)}
        logits = run(inputs)[0, len(tokens) - 1]
        logits[[PAD, UNKNOWN, START] + [END] * (len(tokens) == 1)] = -np.inf
        tokens.append(int(logits.argmax()))
        if tokens[-1] == END:
            return tokens[1:-1]
    return tokens[1:]


@pytest.fixture(scope="module")
def model():
    return random_model()


def test_greedy_answers_are_those_of_the_whole_model(model):
    run = whole(model)
    found = answerer(model, rows=2, beams=1, length_penalty=0.0, no_repeat=0)(PAIRS.sources)
    assert found == [greedy(run, source, 9) for source in PAIRS.sources]  # three, in batches of two
    coldest = answerer(model, temperature=1.0, top_k=1, no_repeat=0)(PAIRS.sources)
    assert coldest == [greedy(run, source, 10) for source in PAIRS.sources]


@pytest.mark.parametrize("options", [{"beams": 3, "no_repeat": 2}, {"temperature": 1.5, "top_p": 1.0, "no_repeat": 2}])
def test_answers_do_not_repeat_themselves_and_are_never_empty(options):
    model = random_model()
    likely, embeddings = np.eye(6)[0], model.get_layer("embedding").embeddings
    rows = ops.convert_to_numpy(embeddings).copy()
    rows[[END, 28, 29]] = [2 * likely, 4 * likely, 4 * likely]
    embeddings.assign(rows)
    model.get_layer("decoder").get_layer("norm").beta.assign(likely)
    answers = answerer(model, **options)(PAIRS.sources * 2)
    assert any({28, 29} & set(answer) for answer in answers)
    for answer in answers:
        runs = list(itertools.pairwise(answer))
        assert len(answer) > 0
        assert len(set(runs)) == len(runs)
        assert not {PAD, UNKNOWN, START, END} & set(answer)


def test_drawn_answers(model):
    write = answerer(model, temperature=1.0, top_p=0.95)
    drawn = []
    for seed in (0, 0, 1):
        write.rng = np.random.default_rng(seed)
        drawn.append(write(PAIRS.sources))
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.once
def test_metrics_of_answers():
    distinct_1, distinct_2 = distinct_n(["I don't know.", "i don't KNOW!", ""])
    assert distinct_1 == 5 / 8  # i, don't, know, ., !
    assert distinct_2 == 4 / 8  # i don't, don't know, know ., know !
    assert distinct_n([""]) == (0, 0)
    subwords = Subwords(train_subwords(["one two three"] * 3, 275))
    sequences = [subwords.encode("one two"), subwords.encode("three")]
    tokens = sum(map(len, sequences)) + 2
    assert word_perplexity(2.0, sequences, subwords) == pytest.approx(2 ** (tokens / 5))
    assert drawable("▁ä$🤖b") == "·ä··b"


@pytest.mark.skipif(keras.config.backend() != "torch", reason="the native baseline is in PyTorch")
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_native_baseline_trains_as_keras_does(cell):
    trainer_class = runpy.run_path(PROJECT / "benchmarks/seq2seq_chatbot_torch.py")["Trainer"]
    options = config(cell=cell, dropout=0.0, learning_rate=0.05, beams=1, no_repeat=0)
    model = build_model(options, VOCABULARY)
    rate = WarmupCosine(options.learning_rate, 10, 0.1)
    model.compile(keras.optimizers.AdamW(rate, weight_decay=1e-4, global_clipnorm=1.0), SequenceLoss(0.1))
    trainer = trainer_class(options, model, steps=10)
    for step in range(6):
        inputs, labels = batch(source=8 + step % 2)
        expected = model.train_on_batch(inputs, labels)
        assert float(trainer.train_on_batch(inputs, labels)) == pytest.approx(float(expected), rel=1e-4)
        model.reset_metrics()
    for ours, theirs in zip(trainer.weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(keras.config.backend() != "torch", reason="the native baseline is in PyTorch")
@pytest.mark.parametrize(("cell", "beams", "no_repeat"), [("gru", 1, 0), ("lstm", 1, 2), ("gru", 3, 0), ("lstm", 3, 2)])
def test_the_native_baseline_writes_the_same_answers(cell, beams, no_repeat):
    native = runpy.run_path(PROJECT / "benchmarks/seq2seq_chatbot_torch.py")
    model, sizes = random_model(cell=cell), (2, 8, 9, 2)
    options = config(cell=cell, beams=beams, no_repeat=no_repeat)
    ours, theirs = (kind(model, None, options, *sizes)(PAIRS.sources) for kind in (Answerer, native["Answerer"]))
    assert ours == theirs
    assert len(ours) == 3 and all(ours)
    with pytest.raises(UsageError, match="the native baseline needs --temperature 0"):
        native["Trainer"](config(cell=cell, temperature=0.7), model, 10)


@pytest.mark.once
def test_the_recorded_runs_are_as_good_as_stated_and_attention_is_worth_something():
    records = read_records("seq2seq_chatbot")
    assert records
    for record in records:
        assert record["value"] == record["metrics"]["perplexity"] < 40
        assert record["value"] < record["metrics"]["plain_perplexity"]


TINY = ("--preset", "smoke", "--data", "talks.jsonl", "--epochs", "3", "--vocabulary", "300", "--test-answers", "6",
        "--held-out", "20")  # fmt: skip


def write_talks(path):
    """Conversations in which a child asks for a colour and gets it: easy to learn."""
    rng = np.random.default_rng(0)
    colours, things = ("red", "blue", "green", "black"), ("ball", "car", "hat")
    lines = []
    for number in range(120):
        colour, thing = rng.choice(colours), rng.choice(things)
        turns = [f"i want the {colour} {thing}", f"here is the {colour} {thing}", f"thank you {number}", "welcome"]
        lines.append(json.dumps(turns))
    path.write_text("\n".join(lines))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The directory of a small run, and what it printed."""
    directory = tmp_path_factory.mktemp("chatbot")
    write_talks(directory / "talks.jsonl")
    process = run_recipe_in(directory, *TINY, "--out", "run")
    assert process.returncode == 0, process.stdout.decode()[-2000:] + process.stderr.decode()[-4000:]
    return directory, process


def run_recipe_in(directory, *arguments, said=b"", **environment):
    command = [sys.executable, PROJECT / "recipes/seq2seq_chatbot.py", *arguments]
    return subprocess.run(
        command, cwd=directory, env=os.environ | environment, input=said, capture_output=True, timeout=600
    )


@pytest.mark.once
def test_a_run(trained):
    directory, process = trained
    result = json.loads(process.stdout.decode().splitlines()[-1].removeprefix("result "))
    assert result == json.loads((directory / "run/result.json").read_text())
    assert (result["data"], result["subwords"]) == ("talks.jsonl", 300)
    assert result["metric"] == "perplexity"
    metrics = result["metrics"]
    assert set(metrics) == {"perplexity", "word_perplexity", "plain_perplexity", "bleu", "distinct_1", "distinct_2"}
    assert 1 < result["value"] == metrics["perplexity"] < 20  # of 300
    assert metrics["word_perplexity"] > metrics["perplexity"]
    assert 20 < metrics["bleu"] <= 100 + 1e-9
    assert 0 < metrics["distinct_1"] <= 1
    assert result["signature"].startswith("nrefs:1|case:mixed")
    files = {path.name for path in (directory / "run").iterdir()}
    assert files == {
        *("checkpoint", "config.json", "result.json", "model.keras", "subwords.model", "subwords.json"),
        *("history.csv", "history-plain.csv", "curves.png", "attention.png", "samples.txt"),
    }
    with Image.open(directory / "run/attention.png") as image:
        pixels = np.asarray(image.convert("L"))
    assert min(pixels.shape) > 200
    assert pixels.std() > 10
    assert (directory / "run/samples.txt").read_text().count("    said:   ") == 6
    for name in ("history.csv", "history-plain.csv"):
        with open(directory / "run" / name) as file:
            rows = list(csv.DictReader(file))
        assert float(rows[-1]["val_perplexity"]) < 0.5 * float(rows[0]["perplexity"])


@pytest.mark.slow
@pytest.mark.in_turn
def test_killed_while_the_baseline_is_trained_and_resumed_ends_with_the_same_bits(trained):
    directory, _ = trained
    command = [sys.executable, PROJECT / "recipes/seq2seq_chatbot.py", *TINY, "--out", "killed"]
    process = subprocess.Popen(
        [*command, "--checkpoint-seconds", "0"], cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while not list((directory / "killed/checkpoint/plain").glob("step-*.npz")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate()
    again = run_recipe_in(directory, "--out", "killed", "--resume")
    assert again.returncode == 0, again.stderr.decode()
    results = [json.loads((directory / run / "result.json").read_text()) for run in ("run", "killed")]
    assert results[0]["metrics"] == results[1]["metrics"]
    models = [keras.saving.load_model(directory / run / "model.keras") for run in ("run", "killed")]
    for ours, theirs in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(ours, theirs)


LINES = [
    "hello!",
    "",
    "   ",
    "😀🤖",
    "你好吗",
    "i want the red ball " * 3000,
    "i want the red ball",
    "שלום",
    "\x00\x1b[A",
]


@pytest.mark.once
def test_chat_through_a_pipe(trained, monkeypatch, capsys):
    directory, _ = trained
    said = "\n".join(LINES).encode() + b"\n\xff\xfe broken\nlast line without end"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(said)))
    predict_from(directory / "run", ["--beams", "2"])
    *answers, end = capsys.readouterr().out.split("\n")[:-1]
    assert all(answer.startswith("bot: ") for answer in answers)
    assert len(answers) == len([line for line in LINES if line.strip()]) + 2
    assert any(answer.removeprefix("bot: ").strip() for answer in answers)
    assert end == ""


@pytest.mark.once
def test_answers_by_search_and_by_sampling(trained):
    directory, _ = trained
    chat = predictor(FinishedRun(directory / "run", Config))
    searched = chat(["i want the red ball"])
    assert searched == chat(["i want the red ball"]) != ""
    wild = {chat(["i want the red ball"], temperature=50.0, top_p=1.0, top_k=100) for _ in range(3)}
    assert len(wild - {searched}) > 1
    options = {"beams": 2, "length_penalty": 1.0, "no_repeat": 3, "temperature": 0.0, "top_k": 0, "top_p": 0.9}
    conversations = [["i want the red ball"], ["hello", "hi", "who are you"], [""]]
    assert chat.several(conversations, **options) == [chat(each, **options) for each in conversations]
    with refused_in_one_line("--top-p must be above 0"):
        chat(["hello"], top_p=0.0)


@pytest.mark.once
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"units": 7}, "--units must be even"),
        ({"top_p": 0.0}, "--top-p must be above 0"),
        ({"beams": 0}, "--beams must be at least 1"),
        ({"test_answers": 0}, "--test-answers must be at least 1"),
        ({"temperature": -1.0}, "--temperature must be at least 0"),
    ],
)
def test_options(changes, message):
    with pytest.raises(UsageError, match=message):
        Config.for_preset("smoke", **changes)


def test_what_cannot_be_trained_on_is_said_in_a_line(tmp_path):
    write_talks(tmp_path / "talks.jsonl")
    with pytest.raises(UsageError, match="--vocabulary 9000 is more than this text allows: take at most"):
        main(Run(Config.for_preset("smoke", data=str(tmp_path / "talks.jsonl"), vocabulary=9000, out=tmp_path / "a")))
