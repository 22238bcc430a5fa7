"""Recurrent language models that write."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from shared.backends.compiling import compiled_inference
from shared.data.randomness import random_stream
from shared.data.text.characters import character_codes
from shared.text.language_model import first_states, read_on
from shared.text.sampling import sample_tokens


def write_characters(
    model: keras.Model,
    alphabet: str,
    prompt: str,
    length: int,
    seed: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> Iterator[str]:
    """Writes what follows a prompt, character by character, with the state carried."""

    def step(codes: Any, states: list, uniform: Any) -> tuple[Any, list]:
        logits, states = read_on(model, codes, states)
        known = ops.arange(logits.shape[-1]) > 0  # code 0 stands for what is not in the alphabet
        return sample_tokens(ops.where(known, logits[:, 0], -1e30), uniform, temperature, top_k, top_p), states

    step = compiled_inference(step, [model])
    states, rng = first_states(model), random_stream(seed, "tokens")
    codes = [int(code) for code in character_codes(prompt, alphabet) if code] or [max(1, alphabet.find("\n"))]
    for index in range(len(codes) - 1 + length):
        drawn, states = step(np.array([[codes[index]]], np.int32), states, rng.random(1, np.float32))
        if index + 1 == len(codes):
            codes.append(int(ops.convert_to_numpy(drawn)[0]))
            yield alphabet[codes[-1]]
