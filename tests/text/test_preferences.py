"""Direct preference optimization: sampled answers, pairs, the loss, and what it changes."""

import dataclasses
from typing import get_args

import keras
import numpy as np
import pytest
from conftest import normal, numbers, with_normal_weights

from recipes.gpt_text import Config, build_model
from shared.text.causal_model import CachedWriter
from shared.text.options import ChatOptions
from shared.text.preferences import (
    ANSWERS_EACH,
    PREFERENCES,
    PROMPTS_AT_ONCE,
    PreferencePairs,
    pairs_by_rule,
    preference_inputs,
    preference_model,
    sampled_answers,
)
from shared.text.sampling import Sampling
from shared.text.subwords import END, PAD, START

PAIRS = PreferencePairs(
    [[START, 5, START], [START, 6, 7, START]], [[8, 9, END], [10, END]], [[11, END], [12, 13, 14, 15]]
)


@pytest.fixture
def model():
    config = Config.for_preset("smoke", depth=2, width=16, heads=2, hidden=24, window=32)
    return with_normal_weights(build_model(config, 20))


def log_likelihood(model, prompt, answer):
    """Of an answer, token by token."""
    text = [*prompt, *answer]
    logits = numbers(model(np.array([[*text, *[PAD] * (16 - len(text))]], "int32")))[0].astype("float64")
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return sum(logits[len(prompt) - 1 + index, token] for index, token in enumerate(answer))


def test_the_rules():
    (option,) = (field for field in dataclasses.fields(ChatOptions) if field.name == "prefer")
    assert get_args(option.type) == ("none", *PREFERENCES)
    assert PREFERENCES["questions"]("And you?")
    assert not PREFERENCES["questions"]("Why? I see.")
    assert [PREFERENCES["brevity"](text) for text in ("", "I am fine.", "I am fine, and so are you.")] == [0, 1, 0]


@pytest.mark.in_turn
def test_answers_are_those_to_each_prompt_alone(model):
    prompts = [[START, *[5 + number % 7] * (number % 4), START] for number in range(PROMPTS_AT_ONCE + 3)]
    write = CachedWriter(model, 32, Sampling(0, end=END))
    for prompt, answers in zip(prompts, sampled_answers(write, prompts, 6, seed=0), strict=True):
        alone = [int(token) for (token,) in write([prompt], 6, seed=0)]
        assert answers == [alone] * ANSWERS_EACH, "greedy, so that all are the same"
    assert any(len(answers[0]) == 6 for answers in sampled_answers(write, prompts, 6, seed=0))
    random = CachedWriter(model, 32, Sampling(1.5, end=END))
    first, again, other = (sampled_answers(random, prompts, 6, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert len({tuple(answer) for answer in first[0]}) > 1
    assert all(END not in answer[:-1] and PAD not in answer for answers in first for answer in answers)


def test_pairs_are_of_prompts_with_answers_of_both_kinds():
    answers = [[[4], [5], [6], [4]], [[4], [4], [4], [4]], [[6], [6], [5], [6]]]
    pairs = pairs_by_rule([[1], [2], [3]], answers, lambda answer: answer == [5])
    assert pairs == ([[1], [3]], [[5], [5]], [[4], [6]])


def test_the_loss_is_that_of_the_paper(model):
    inputs = preference_inputs(PAIRS, model, 2)
    before = [[log_likelihood(model, *pair) for pair in zip(PAIRS.prompts, side, strict=True)] for side in PAIRS[1:]]
    np.testing.assert_allclose(inputs["reference"], np.subtract(*before), rtol=1e-4, atol=1e-4)
    preference = preference_model(model, 0.3)
    np.testing.assert_allclose(numbers(preference(inputs)), 0, atol=1e-4)
    head = model.get_layer("decoder").weights[0]
    head.assign(head + 0.1 * normal(*head.shape, seed=9))
    after = [[log_likelihood(model, *pair) for pair in zip(PAIRS.prompts, side, strict=True)] for side in PAIRS[1:]]
    logits = 0.3 * ((np.array(after[0]) - before[0]) - (np.array(after[1]) - before[1]))
    assert np.abs(logits).min() > 1e-3
    np.testing.assert_allclose(numbers(preference(inputs)), logits, rtol=1e-3, atol=1e-4)
    preference.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    loss = preference.evaluate(inputs, np.ones(2, "float32"), verbose=0)
    assert loss == pytest.approx(np.log1p(np.exp(-logits)).mean(), rel=1e-3)


@pytest.mark.in_turn
def test_training_makes_the_chosen_answers_likelier_than_the_rejected(model):
    inputs = preference_inputs(PAIRS, model, 2)
    preference = preference_model(model, 0.3)
    preference.compile(keras.optimizers.Adam(1e-2), keras.losses.BinaryCrossentropy(from_logits=True))
    losses = [float(preference.train_on_batch(inputs, np.ones(2, "float32"))) for _ in range(10)]
    assert losses[0] == pytest.approx(np.log(2), abs=1e-3)
    assert float(preference.test_on_batch(inputs, np.ones(2, "float32"))) < 0.5
    assert numbers(preference(inputs)).min() > 0
