"""The decoder-only Transformer: as people run it."""

import json
import re
import runpy

import keras
import numpy as np
import pytest
from conftest import PROJECT, all_but_one_slow, refused_in_one_line, with_normal_weights

from recipes.gpt_text import Config, build_model, build_optimizer, main
from shared.backends.optimizers import prepare_optimizer
from shared.data.text.characters import load_text
from shared.errors import UsageError
from shared.text.batches import TextBatches
from shared.text.causal_model import CachedWriter
from shared.text.sampling import Sampling
from shared.text.subwords import kept_subwords
from shared.tools.exporting.formats import Request
from shared.tools.exporting.worker import export
from shared.tools.predict import open_predictor, predict_from
from shared.tools.serving.engines import onnx_engine
from shared.training.options import parse_options, write_config
from shared.training.predictors import signature_of
from shared.training.run import Run
from shared.training.saving import save_model

VERSE = "Roses are red, violets are blue,\nsugar is sweet, and so are you.\n" * 100
TINY = (
    "--preset", "smoke", "--epochs", "5", "--width", "32", "--depth", "2", "--heads", "2", "--hidden", "64",
    "--window", "32", "--length", "60", "--data", "verse.txt",
)  # fmt: skip


@pytest.mark.skipif(keras.config.backend() != "torch", reason="the native baseline is in PyTorch")
@pytest.mark.parametrize("key_value_heads", [None, 1])
def test_the_native_baseline_trains_and_writes_as_keras_does(key_value_heads):
    config = Config.for_preset(
        "smoke", width=16, depth=2, heads=2, hidden=24, key_value_heads=key_value_heads, batch_size=4, window=16,
        learning_rate=1e-3,
    )  # fmt: skip
    native = runpy.run_path(str(PROJECT / "benchmarks/gpt_text_torch.py"))
    codes = np.random.default_rng(0).integers(1, 11, 2000).astype("uint16")
    batches = TextBatches(codes, config.window, config.batch_size, seed=0)
    model = with_normal_weights(build_model(config, 11))
    asked = ([[1, 2, 3]], 40, 7)
    texts = [
        np.concatenate(list(kind(model, 16, Sampling(1.2, end=None))(*asked))).tolist()
        for kind in (CachedWriter, native["CachedWriter"])
    ]
    assert texts[0] == texts[1]
    model.compile(build_optimizer(config, 20), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    prepare_optimizer(model)
    trainer = native["Trainer"](config, model, 20)
    for index in range(6):
        model.reset_metrics()
        ours, theirs = (float(each.train_on_batch(*batches[index])) for each in (model, trainer))
        assert ours == pytest.approx(theirs, rel=1e-4)
    for a, b in zip(model.get_weights(), trainer.weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    with pytest.raises(UsageError, match="--positions rotary"):
        native["Trainer"](Config.for_preset("smoke", positions="learned"), model, 20)


@pytest.mark.once
@pytest.mark.parametrize("vocabulary", all_but_one_slow([0, 300], 300))
def test_learns_a_verse_and_writes_from_it(run_recipe, tmp_path, capsys, vocabulary):
    (tmp_path / "verse.txt").write_text(VERSE, encoding="utf-8")
    options = (*TINY, "--vocabulary", str(vocabulary), "--learning-rate", "1e-2", "--target", "1.0", "--out", "run")
    process = run_recipe("gpt_text", *options, check=0)
    result = json.loads(process.stdout.splitlines()[-1].removeprefix("result "))
    assert result["metric"] == "validation_nats"
    assert 0 < result["value"] == result["metrics"]["validation_nats"] < 1.0
    files = {path.relative_to(tmp_path / "run").as_posix() for path in (tmp_path / "run").rglob("*.*")}
    drawn = {"attention.png", "curves.png", "samples.txt", *(f"samples/epoch-00{epoch}.txt" for epoch in range(1, 6))}
    assert drawn | ({"subwords.model"} if vocabulary else set()) < files
    sample = (tmp_path / "run/samples.txt").read_text(encoding="utf-8")
    assert sample.strip() in process.stdout

    predict_from(tmp_path / "run", ["Roses 猫", "--length", "40", "--min-p", "0.1", "--repetition-penalty", "1.01"])
    out, err = capsys.readouterr()
    assert out.startswith("Roses 猫")
    assert len(out) >= 40
    assert ("left out, not in the training text: '猫'" in err) == (vocabulary == 0)
    _, predict = open_predictor(tmp_path / "run")
    texts = ["".join(predict("Roses", length=30, sample_seed=seed, temperature=2.0)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    with refused_in_one_line("--min-p must be between 0 and 1"):
        predict_from(tmp_path / "run", ["Roses", "--min-p", "2"])


@pytest.mark.only_on("torch")
def test_learns_to_talk_and_then_to_prefer(monkeypatch, tmp_path, capsys):
    """On conversations of a kind, in which some people ask back; the resumed run finds everything trained.

    Options for generated text, which it may change, do not change the answers that make pairs: greedy ones would not.
    """
    monkeypatch.setenv("KERAS_RECIPES_CACHE", str(tmp_path / "cache"))
    (tmp_path / "verse.txt").write_text(VERSE, encoding="utf-8")
    words = ("red", "blue", "so", "sweet", "sugar", "roses", "violets", "violet", "rose", "you", "are", "is", "and")
    talk = [f"Are you {a}, {b}?\tI am {b}, {a}.\tAnd are you {b}, {a}?" for a in words for b in words]
    (tmp_path / "talk.tsv").write_text("\n".join(talk), encoding="utf-8")
    options = [
        *TINY, "--data", str(tmp_path / "verse.txt"), "--dialogues", str(tmp_path / "talk.tsv"), "--vocabulary", "300",
        "--finetune", "dialogues", "--finetune-epochs", "4", "--finetune-learning-rate", "1e-2", "--answer", "20",
        "--prefer", "questions", "--preference-prompts", "60", "--preference-learning-rate", "2e-3",
        "--finetune-batch-size", "8", "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    metrics = main(Run(parse_options(Config, options)))
    assert metrics["dialogue_word_nats"] < 3
    assert metrics["preferred_rate_before"] < metrics["preferred_rate_after"] - 0.1
    assert metrics["preference_accuracy"] > 0.6
    assert "pairs of answers for training" in capsys.readouterr().out
    answers = (tmp_path / "run/answers.txt").read_text(encoding="utf-8")
    assert "Are you" in answers
    assert main(Run(parse_options(Config, [*options, "--resume", "--temperature", "0"]))) == metrics


@pytest.mark.only_on("tensorflow")
@pytest.mark.parametrize("finetune", all_but_one_slow(["none", "dialogues"], "dialogues"))
def test_an_exported_model_of_subwords_writes_or_answers_without_keras(finetune, run_python, hiding, tmp_path):
    (tmp_path / "run").mkdir()
    config = Config.for_preset("test", vocabulary=300, finetune=finetune, window=8, answer=12, normalization="rms")
    write_config(tmp_path / "run", "gpt_text", config)
    subwords = kept_subwords(tmp_path / "run/subwords.model", VERSE.split("\n"), 300, symbols=("\n",), keep_spaces=True)
    (tmp_path / "run/result.json").write_text(json.dumps({"metrics": {}, "alphabet": ""}))
    model = with_normal_weights(build_model(config, len(subwords)))
    save_model(model, tmp_path / "run/model.keras")
    about = tmp_path / "run/export/onnx/model.json"
    assert export(Request(tmp_path / "run", "onnx", about.with_suffix(".onnx")), timed=False) == 0
    facts = json.loads(about.read_text(encoding="utf-8"))
    about.write_text(json.dumps(facts | {"temperature": 0}))
    command = (PROJECT / "docs/deploy/complete.py", about, "violets are", 12, 0)
    shown = run_python(*command, check=0, **hiding("keras", "tensorflow", "torch", "jax", "shared")).stdout
    _, predict = open_predictor(tmp_path / "run")
    given = {"temperature": 0.0} | ({"length": 12} if finetune == "none" else {})
    prompt = "violets are" if finetune == "none" else ["violets are"]
    expected = "".join(predict(prompt, **given))
    assert len(expected) > 3
    options = {name: default for name, (_, default) in signature_of(predict).options.items()}
    served = onnx_engine(tmp_path / "run").predict
    assert "".join(served(prompt, **options | given)) == expected
    options |= {"temperature": 1.5, "top_k": 40, "sample_seed": 3}
    assert "".join(served(prompt, **options)) == "".join(predict(prompt, **options))
    assert shown.rstrip("\ufffd\n") == expected.rstrip("\ufffd\n"), "but for a character that is not whole"


@pytest.mark.once
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--width", "33"), "--width must be a multiple of twice the 2 heads, not 33"),
        (("--key-value-heads", "3"), "--key-value-heads must divide the 2 heads, not 3"),
        (("--finetune", "dialogues"), "--finetune needs subwords, so a --vocabulary, not dialogues"),
        (
            ("--finetune", "dialogues", "--vocabulary", "300", "--positions", "learned"),
            "--positions must be rotary for dialogues",
        ),
        (("--prefer", "questions"), "--prefer needs --finetune dialogues, not questions"),
        (("--vocabulary", "70000"), "--vocabulary must be between 0 and 65535"),
        (("--window", "5000"), "--window must be at most 324 for this text"),
        (("--min-p", "1.5"), "--min-p must be between 0 and 1"),
    ],
)
def test_mistakes_get_one_line(monkeypatch, tmp_path, options, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_RECIPES_CACHE", str(tmp_path / "cache"))
    (tmp_path / "verse.txt").write_text(VERSE, encoding="utf-8")
    with pytest.raises(UsageError, match=re.escape(message)) as error:
        config = parse_options(Config, [*TINY, *options])
        config.limited(load_text(config.data, config.data_dir))
    assert "\n" not in str(error.value)
