"""Recurrent language models that read and write one text, however long, with the state carried."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from shared.backends.compiling import compiled_inference
from shared.data.randomness import random_stream
from shared.data.text.characters import character_codes
from shared.text.beam_search import IMPOSSIBLE
from shared.text.sampling import penalized_logits, sample_tokens


def read_on(model: keras.Model, codes: Any, states: list) -> tuple[Any, list]:
    """What a model says of characters that follow others.

    Args:
        model: a chain of layers, from codes (batch, steps) to logits; the recurrent ones return sequences and states.
        codes: (batch, steps).
        states: of each recurrent layer, before the first of these characters.

    Returns:
        The logits (batch, steps, characters) of what follows each, and the states after the last.
    """
    x, after = codes, []
    for layer in model.layers[1:]:
        if isinstance(layer, keras.layers.RNN):
            x, *state = layer(x, initial_state=states[len(after)])
            after.append(state)
        else:
            x = layer(x)
    return x, after


def first_states(model: keras.Model) -> list:
    """The states of the recurrent layers before one text: zeros."""
    recurrent = [layer for layer in model.layers if isinstance(layer, keras.layers.RNN)]
    return [keras.tree.flatten(layer.get_initial_state(1)) for layer in recurrent]


def nats_a_character(model: keras.Model, codes: np.ndarray, block: int = 1000) -> float:
    """The mean negative logarithm of the probability of each character of a text but the first.

    Args:
        model: see `read_on`.
        codes: (characters,).
        block: characters read at once, with the state carried from block to block.
    """

    def surprise(codes: Any, targets: Any, states: list) -> tuple[Any, list]:
        logits, states = read_on(model, codes, states)
        likelihood = ops.take_along_axis(ops.log_softmax(logits, axis=-1), targets[..., None], axis=-1)
        return -likelihood[0, :, 0], states

    surprise = compiled_inference(surprise, [model])
    states, found = first_states(model), []
    inputs, targets = codes[:-1].astype(np.int32), codes[1:].astype(np.int32)
    for start in range(0, len(inputs), block):
        missing = max(0, start + block - len(inputs))  # filled up behind all that counts, for one shape
        parts = (np.pad(each[None, start : start + block], [(0, 0), (0, missing)]) for each in (inputs, targets))
        nats, states = surprise(*parts, states)
        found.append(ops.convert_to_numpy(nats))
    return float(np.concatenate(found)[: len(inputs)].mean(dtype=np.float64))


class CharacterWriter:
    """Writes what follows a prompt, character by character, each at the same cost; compiled once for all texts.

    Args:
        model: see `read_on`.
        alphabet: the character of each code; code 0, which stands for all others, is not written.
    """

    def __init__(self, model: keras.Model, alphabet: str):
        self.model = model
        self.alphabet = alphabet
        self.program = functools.lru_cache(8)(self.compiled_step)

    def compiled_step(self, repetition_penalty: float, **sampling: Any) -> Callable:
        """The program that reads a code (1, 1) and draws the next: from the states, the codes that were `seen`
        (1, characters) and a uniform random number (1,), to the code (1,) and the states."""

        def step(codes: Any, states: list, seen: Any, uniform: Any) -> tuple[Any, list]:
            logits, states = read_on(self.model, codes, states)
            logits = logits[:, 0]
            if repetition_penalty != 1:
                logits = penalized_logits(logits, seen, repetition_penalty)
            known = ops.arange(logits.shape[-1]) > 0
            return sample_tokens(ops.where(known, logits, IMPOSSIBLE), uniform, **sampling), states

        return compiled_inference(step, [self.model])

    def __call__(
        self,
        prompt: str,
        length: int,
        seed: int,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
    ) -> Iterator[str]:
        """Writes a text.

        Args:
            prompt: read first; what is not in the alphabet is left out of it. Empty: the beginning of a line.
            length: characters to write.
            seed: of what is drawn.
            temperature: see `shared.text.sampling.sample_tokens`, as the rest.
            top_k: see there.
            top_p: see there.
            min_p: see there.
            repetition_penalty: see `shared.text.sampling.penalized_logits`.
        """
        step = self.program(repetition_penalty, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
        states, rng = first_states(self.model), random_stream(seed, "tokens")
        codes = [int(code) for code in character_codes(prompt, self.alphabet) if code]
        codes = codes or [max(1, self.alphabet.find("\n"))]
        seen = np.zeros((1, len(self.alphabet)), bool)
        for index in range(len(codes) - 1 + length):
            seen[0, codes[index]] = True
            drawn, states = step(np.array([[codes[index]]], np.int32), states, seen, rng.random(1, np.float32))
            if index + 1 == len(codes):
                codes.append(int(ops.convert_to_numpy(drawn)[0]))
                yield self.alphabet[codes[-1]]
