"""Decoder-only models: overlapping windows and the key-value cache, against the model run on whole texts."""

import keras
import numpy as np
import pytest

from recipes.gpt_text import Config, build_model
from shared.text.causal_model import CachedWriter, nats_in_windows
from shared.text.plots import plot_attention_heads
from shared.text.sampling import Sampling
from shared.tools.plain.text import causal_model as plain_causal_model

CHARACTERS, WINDOW = 11, 8
KINDS = {
    "rotary": {"key_value_heads": 2},
    "learned": {"positions": "learned", "activation": "gelu", "normalization": "rms", "tied": False},
}


@pytest.fixture(params=KINDS)
def model(request):
    config = Config.for_preset("smoke", depth=2, width=16, heads=4, hidden=24, window=WINDOW, **KINDS[request.param])
    model = build_model(config, CHARACTERS)
    for index, variable in enumerate(model.trainable_variables):
        variable.assign(0.4 * np.random.default_rng(index).normal(size=variable.shape) + ("gamma" in variable.path))
    return model


def codes(length, seed=0):
    return np.random.default_rng(seed).integers(1, CHARACTERS, length).astype("uint16")


def last_likelihood(model, text):
    """Of the last token of a text within one window."""
    logits = next_logits(model, text[:-1].tolist()).astype("float64")
    return logits[text[-1]] - np.log(np.exp(logits).sum())


def test_each_token_is_predicted_from_half_a_window_or_more(model):
    for length in (2, 6, 9, 13, 14, 30):
        text = codes(length)
        starts = [max(0, (last - 1) // 4 * 4 - 4) for last in range(1, length)]
        expected = [last_likelihood(model, text[start : last + 1]) for last, start in enumerate(starts, 1)]
        assert nats_in_windows(model, text, WINDOW, batch_size=3) == pytest.approx(-np.mean(expected), rel=1e-4)


def next_logits(model, text):
    """After a text, which is filled up behind for one shape."""
    filled = np.array([[*text, *[1] * (WINDOW - len(text))]], "int32")
    return model.predict_on_batch(filled)[0, len(text) - 1]


def uncached(model, prompt, length, penalty=1.0):
    """Greedy: for each token the model reads its window again, all at once."""
    text = list(prompt)
    start = 0 if len(text) < WINDOW else len(text) - WINDOW // 2
    for _ in range(length):
        if len(text) - start == WINDOW:
            start = len(text) - WINDOW // 2
        logits = next_logits(model, text[start:])
        for token in set(text[start:]):
            logits[token] *= 1 / penalty if logits[token] > 0 else penalty
        logits[0] = -np.inf
        text.append(int(logits.argmax()))
    return text[len(prompt) :]


@pytest.mark.in_turn
@pytest.mark.parametrize("penalty", [1.0, 1.5])
def test_the_cache_changes_nothing(model, penalty):
    write = CachedWriter(model, WINDOW, Sampling(0, end=None, repetition_penalty=penalty))
    for given in (1, 5, 8, 11):
        prompt = codes(given).tolist()
        written = [int(token) for (token,) in write([prompt], 20, seed=0)]
        assert written == uncached(model, prompt, 20, penalty)


def test_prompts_of_different_lengths_in_a_batch(model):
    prompts = [codes(length, seed=length).tolist() for length in (3, 6, 1)]
    write = CachedWriter(model, WINDOW, Sampling(0, end=None))
    written = np.stack(list(write(prompts, 5, seed=0)), axis=1)
    assert written.shape == (3, 10)  # from the end of the shortest to 5 behind the longest
    for row, prompt in zip(written.tolist(), prompts, strict=True):
        assert row[: len(prompt) - 1] == prompt[1:]
        if len(prompt) + 7 <= WINDOW:  # all in one window, like alone
            assert row[len(prompt) - 1 :][:7] == uncached(model, prompt, 7)


def test_a_token_costs_the_same_at_any_length(model, monkeypatch):
    lengths = []
    embedding = model.get_layer("embedding")
    call = embedding.call

    def noted(x, reverse=False):
        if not reverse:
            lengths.append(tuple(x.shape))
        return call(x, reverse=reverse)

    monkeypatch.setattr(embedding, "call", noted)
    assert len(list(CachedWriter(model, WINDOW, Sampling(end=None))([[1, 2, 3]], 40, seed=0))) == 40
    assert set(lengths) == {(1, 1), (1, WINDOW)}  # a token; and a window, read again whenever one is full
    if keras.config.backend() != "torch":  # which runs a program as it is once for each layout, then records it
        assert len(lengths) == 2


def test_a_seed_writes_the_same_on_every_backend(model):
    write = CachedWriter(model, WINDOW, Sampling(1.2, top_k=8, min_p=0.02, end=None))
    texts = ["".join("-abcdefghij"[token] for (token,) in write([[1, 2]], 30, seed)) for seed in (7, 7, 8)]
    assert texts[0] == texts[1] != texts[2]
    learned = any(layer.name == "positions" for layer in model.layers)
    assert texts[0] == ("dadjbdbjbhhfchhecebgafadehedfj" if learned else "eachccajbhgecfgfcccgagbccgebgi")


@pytest.mark.skipif(keras.config.backend() != "torch", reason="compiles nothing there")
def test_the_plain_copy_writes_the_same(model):
    """Also in batches, and where a token ends a sequence."""
    given = [[1], [4, 5, 6], [7, 8]]
    for method in (Sampling(1.2, 8, 0.95, min_p=0.02, end=None, repetition_penalty=1.2), Sampling(1.0, end=9)):
        ours, plain = (
            [each.tolist() for each in kind(model, WINDOW, method)(given, 20, seed=3)]
            for kind in (CachedWriter, plain_causal_model.CachedWriter)
        )
        assert ours == plain


def test_writing_nothing(model):
    assert list(CachedWriter(model, WINDOW, Sampling(end=None))([[1, 2]], 0, seed=0)) == []


@pytest.mark.once
@pytest.mark.parametrize(("tokens", "rotation"), [("abc", 0), (["a", "bour", "·"], 90)])
def test_labels_of_subwords_do_not_lie_on_each_other(tokens, rotation):
    (axes,) = plot_attention_heads([np.eye(3)[None]], tokens).axes
    assert [label.get_rotation() for label in axes.get_xticklabels()] == [rotation] * 3
