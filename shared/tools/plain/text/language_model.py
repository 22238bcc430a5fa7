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
from shared.text.sampling import penalized_logits, sample_tokens


def write_characters(
    model: keras.Model,
    alphabet: str,
    prompt: str,
    length: int,
    seed: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
) -> Iterator[str]:
    """Writes what follows a prompt, character by character, with the state carried."""

    def step(codes: Any, states: list, seen: Any, uniform: Any) -> tuple[Any, list]:
        logits, states = read_on(model, codes, states)
        logits = penalized_logits(logits[:, 0], seen, repetition_penalty)
        known = ops.arange(logits.shape[-1]) > 0  # code 0 stands for what is not in the alphabet
        return sample_tokens(ops.where(known, logits, -1e30), uniform, temperature, top_k, top_p, min_p), states

    step = compiled_inference(step, [model])
    states, rng = first_states(model), random_stream(seed, "tokens")
    codes = [int(code) for code in character_codes(prompt, alphabet) if code] or [max(1, alphabet.find("\n"))]
    for index in range(len(codes) - 1 + length):
        seen = np.isin(np.arange(len(alphabet)), codes[: index + 1])[None]
        drawn, states = step(np.array([[codes[index]]], np.int32), states, seen, rng.random(1, np.float32))
        if index + 1 == len(codes):
            codes.append(int(ops.convert_to_numpy(drawn)[0]))
            yield alphabet[codes[-1]]
