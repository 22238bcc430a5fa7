"""Decoder-only language models: evaluated in overlapping windows, generating with a key-value cache."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from shared.backends.compiling import compiled_inference
from shared.data.randomness import random_stream
from shared.text.decoding import decoding_step, generate
from shared.text.pairs import padded
from shared.text.sampling import Sampling
from shared.text.subwords import PAD
from shared.text.tokens import Vocabulary, decoded_stream
from shared.text.transformer import CausalTransformer


def nats_in_windows(model: keras.Model, codes: np.ndarray, window: int, batch_size: int = 32) -> float:
    """The mean negative log-likelihood of the tokens of a text but the first, in nats.

    Windows overlap by half, and of each but the first only the second half counts: each token is predicted from at
    least half a window, or from all that stands before it.

    Args:
        model: from ids (batch, window) to logits (batch, window, tokens).
        codes: (tokens,), the text.
        window: sequence length.
        batch_size: windows read at once.
    """

    def surprise(ids: Any, targets: Any) -> Any:
        likelihood = ops.log_softmax(model(ids, training=False), axis=-1)
        return -ops.take_along_axis(likelihood, targets[..., None], axis=-1)[..., 0]

    surprise = compiled_inference(surprise, [model])
    stride = max(1, window // 2)
    starts = range(0, max(1, len(codes) - 1 - (window - stride)), stride)
    total, counted = 0.0, 0
    for first in range(0, len(starts), batch_size):
        chosen = list(starts[first : first + batch_size])
        filled = [codes[start : start + window + 1] for start in chosen + chosen[:1] * (batch_size - len(chosen))]
        ids = padded([row.tolist() for row in filled], window + 1)
        nats = ops.convert_to_numpy(surprise(ids[:, :-1], ids[:, 1:]))
        for start, row in zip(chosen, nats, strict=False):
            counts = row[window - stride if start else 0 : len(codes) - 1 - start]
            total, counted = total + float(counts.sum(dtype=np.float64)), counted + len(counts)
    return total / counted


class ModelParts(NamedTuple):
    """The parts of a decoder-only model, to run it token by token."""

    embed: Callable
    """From ids (batch, length) and the position of the first, 0 by default, to vectors (batch, length, channels)."""
    decoder: CausalTransformer
    logits: Callable
    """From vectors (batch, length, channels) to logits (batch, length, tokens)."""


def model_parts(model: keras.Model) -> ModelParts:
    """The parts of a model with the layers "embedding" and "decoder"; "positions", if they are embedded; and "head", if
    the embedding is not its own reverse.
    """
    named = {layer.name: layer for layer in model.layers}
    embedding, positions, head = named["embedding"], named.get("positions"), named.get("head")

    def embed(ids: Any, start: Any = 0) -> Any:
        return positions(embedding(ids), start=start) if positions else embedding(ids)

    def logits(x: Any) -> Any:
        return head(x) if head else embedding(x, reverse=True)

    return ModelParts(embed, named["decoder"], logits)


def attention_maps(model: keras.Model, ids: np.ndarray) -> list[np.ndarray]:
    """Attention weights (heads, length, length) of each block on a text (length,)."""
    parts = model_parts(model)
    weights = parts.decoder.attention_weights(parts.embed(ids[None].astype(np.int32)))
    return [ops.convert_to_numpy(ops.cast(each, "float32"))[0] for each in weights]


class CachedWriter:
    """Generation by a decoder-only model with a key-value cache: each token costs the same, wherever it stands.

    The model attends to at most `window` tokens. When they are full, their second half is read again as the beginning
    of the next window, so the text may become of any length.

    Args:
        model: see `model_parts`.
        window: sequence length of the training.
        method: how tokens are chosen.
    """

    def __init__(self, model: keras.Model, window: int, method: Sampling):
        self.embed, self.decoder, self.logits = model_parts(model)
        self.window = window
        self.method = method
        self.read = compiled_inference(self.caches, [model])
        self.advance = compiled_inference(decoding_step(self.step, method), [model])

    def caches(self, ids: Any) -> list:
        """The key-value caches of each block for ids (batch, window)."""
        return self.decoder.read(self.embed(ids))[1]

    def step(self, tokens: Any, index: Any, caches: list, context: None) -> tuple[Any, list]:
        """Logits (batch, tokens) after tokens (batch,) at position `index`, and the caches with them."""
        x, caches = self.decoder.step(self.embed(tokens[:, None], index), caches, index)
        return self.logits(x)[:, 0], caches

    def __call__(self, prompts: list[list[int]], length: int, seed: int) -> Iterator[np.ndarray]:
        """Generates what follows some prompts, which are read as one batch.

        Args:
            prompts: ids, at least one each.
            length: tokens to generate after the longest prompt.
            seed: of sampling.

        Yields:
            (prompts,), the next token of each, from the first position at which a prompt has ended; of the others the
            next token of the prompt. Where the method has a token that ends a sequence, PAD follows it, and the
            generation stops when all have ended.
        """
        rng, known = random_stream(seed, "tokens"), min(map(len, prompts))
        text, ended = padded(prompts, max(map(len, prompts)) + length), np.zeros(len(prompts), bool)
        while known < text.shape[1] and not ended.all():
            start = known - self.window // 2 if known >= self.window else 0
            ids = padded([row.tolist() for row in text[:, start : start + self.window]], self.window)
            first = known - start - 1
            begun = self.method.start(ids)._replace(last=ids[:, first])
            for sequences in generate(self.advance, begun, self.read(ids), None, rng, first):
                # A sequence that has ended may have left the window.
                text[:, known] = np.where(ended, PAD, ops.convert_to_numpy(sequences.last))
                ended |= text[:, known] == (PAD if self.method.end is None else self.method.end)
                yield text[:, known]
                known += 1
                if known == text.shape[1] or ended.all():
                    break


def continued(writer: CachedWriter, vocabulary: Vocabulary, prompt: str, length: int, seed: int) -> Iterator[str]:
    """Generates the continuation of a prompt, piece by piece; an empty one is the beginning of a line.

    Args:
        writer: of the model.
        vocabulary: of the model.
        prompt: what is not in the vocabulary is left out.
        length: tokens to generate.
        seed: of sampling.
    """
    ids = vocabulary.encode(prompt) or vocabulary.encode("\n") or [1]
    return decoded_stream((token for (token,) in writer([ids], length, seed)), vocabulary)
