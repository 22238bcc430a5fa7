"""A decoder-only Transformer of characters, a small GPT, which writes text.

Predicts each character of a text from those before it, by causal self-attention: Radford et al. 2018, "Improving
Language Understanding by Generative Pre-Training". Blocks are normalized before each part (pre-norm); the defaults are
those of today's models: rotary position embeddings (RoPE, https://arxiv.org/abs/2104.09864), SwiGLU
(https://arxiv.org/abs/2002.05202), tied embeddings. GPT-2's are options, so is grouped-query attention
(https://arxiv.org/abs/2305.13245).

    KERAS_BACKEND=torch python recipes/gpt_text.py                        tiny Shakespeare, on two CPU cores
    KERAS_BACKEND=torch python recipes/gpt_text.py --data book.txt        any text in UTF-8, or a folder of texts
    KERAS_BACKEND=torch python recipes/gpt_text.py --positions learned --activation gelu --hidden 512
    KERAS_BACKEND=torch python recipes/gpt_text.py --key-value-heads 2
    KERAS_BACKEND=jax python recipes/gpt_text.py --preset full            tiny Shakespeare, on one GPU
    KERAS_BACKEND=jax recipes predict RUN "ROMEO:"                        writes on

It is measured in nats a character on the held-out text, read in windows that overlap by half. The loss in history.csv
is that of windows side by side, so a little higher.

The recorded runs are under results/gpt_text.
"""

import functools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

try:
    from shared.backends.choice import require_backend
except ModuleNotFoundError:
    print("error: the package shared is not installed: run  pip install -e .  in keras-recipes", file=sys.stderr)
    sys.exit(2)
require_backend()

import keras
import numpy as np
from keras import layers

from shared.data.text.characters import TextData, character_codes
from shared.files import replacing
from shared.layers.positions import LearnedPositions
from shared.text.batches import TextBatches, consecutive_windows
from shared.text.causal_model import CachedWriter, attention_maps, nats_in_windows, readable
from shared.text.options import TextOptions
from shared.text.plots import plot_attention_heads, plot_loss_against_tokens
from shared.text.transformer import CausalTransformer, TokenEmbedding
from shared.training.predictors import FinishedRun, Text, TextStream
from shared.training.ranges import Count, Limit, NonNegative, Positive, Rate, ranged
from shared.training.run import Run, launch
from shared.training.schedules import WarmupCosine


@dataclass(kw_only=True)
class Config(TextOptions):
    """Trains a decoder-only Transformer on a text, and generates text."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "test": {
            "data": "chitchat", "epochs": 1, "train_characters": 20_000, "test_characters": 1000, "depth": 2,
            "width": 32, "heads": 4, "key_value_heads": 2, "hidden": 64, "window": 32, "dropout": 0.1, "length": 20,
            "learning_rate": 1e-5,
        },
        "smoke": {
            "epochs": 2, "depth": 3, "width": 96, "heads": 3, "hidden": 256, "window": 64, "train_characters": 200_000,
            "test_characters": 10_000, "length": 200,
        },
        "full": {
            "epochs": 60, "batch_size": 64, "learning_rate": 1e-3, "depth": 6, "width": 384, "heads": 6, "hidden": 1024,
            "window": 256, "dropout": 0.2, "patience": 10,
        },
    }  # fmt: skip

    epochs: Count = 10
    batch_size: Count = 8
    """Windows per step: at a given number of tokens, small batches learn more."""
    learning_rate: Positive = 3e-3
    """The highest learning rate, of AdamW."""
    weight_decay: NonNegative = 0.1
    """Weight decay of the kernels and embeddings."""
    warmup: Rate = 0.05
    """Learning-rate warmup: fraction of the steps over which it rises, before cosine decay."""
    clip: Positive = 1.0
    """Gradient clipping: maximum global norm."""
    depth: Count = 4
    """Number of blocks."""
    width: Count = 128
    """Model width, which is the embedding size."""
    heads: Count = 4
    """Attention heads, which share the width."""
    key_value_heads: Limit = None
    """Grouped-query attention: number of heads of keys and values (default: as many as heads)."""
    hidden: Count = 344
    """Hidden width of the feed-forward layers."""
    positions: Literal["rotary", "learned"] = "rotary"
    """Positional encoding: rotary (RoPE), of queries and keys, or learned, added to the embeddings."""
    normalization: Literal["layer", "rms"] = "layer"
    """Layer normalization, or root mean square normalization (RMSNorm)."""
    activation: Literal["swiglu", "gelu", "relu"] = "swiglu"
    """Activation of the feed-forward layers; SwiGLU has three matrices, so take two thirds of the hidden width."""
    tied: bool = True
    """Tied embeddings: the output projection has the weights of the embedding."""
    dropout: Rate = 0.0
    """Dropout rate."""
    window: ranged(int, least=2) = 128
    """Context length, in characters."""

    def __post_init__(self):
        super().__post_init__()
        rule = f"must be a multiple of twice the {self.heads} heads"
        self.require("width", self.width % (2 * self.heads) == 0, rule)
        rule = f"must divide the {self.heads} heads"
        self.require("key_value_heads", self.heads % (self.key_value_heads or 1) == 0, rule)


def build_model(config: Config, characters: int) -> keras.Model:
    """Character codes (batch, length) to logits (batch, length, characters) of the next character, in float32."""
    codes = keras.Input((None,), dtype="int32")
    embedding = TokenEmbedding(characters, config.width, stddev=0.02, name="embedding")
    rotary = config.positions == "rotary"
    x = embedding(codes)
    if not rotary:
        x = LearnedPositions(config.window, name="positions")(x)
    x = layers.Dropout(config.dropout)(x)
    x = CausalTransformer(  # blocks of  x + attention(norm(x))  and  x + feed_forward(norm(x)),  and a last norm
        config.depth, config.heads, config.hidden, config.dropout, rotary, config.key_value_heads,
        config.normalization, config.activation, name="decoder",
    )(x)  # fmt: skip
    logits = embedding(x, reverse=True) if config.tied else layers.Dense(characters, dtype="float32", name="head")(x)
    return keras.Model(codes, logits, name="gpt")


def build_optimizer(config: Config, steps: int) -> keras.optimizers.Optimizer:
    """AdamW for `steps` steps; biases and the scales of normalization have no weight decay."""
    rate = WarmupCosine(config.learning_rate, steps, config.warmup)
    optimizer = keras.optimizers.AdamW(rate, beta_2=0.99, weight_decay=config.weight_decay, global_clipnorm=config.clip)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", "scale"])
    return optimizer


def prompt_codes(prompt: str, alphabet: str) -> list[int]:
    """Codes of a prompt, without characters outside the alphabet; if none are left, of the beginning of a line."""
    return [int(code) for code in character_codes(prompt, alphabet) if code] or [max(1, alphabet.find("\n"))]


class TrainingSamples(keras.callbacks.Callback):
    """Writes a sample after each epoch, to samples/epoch-NNN.txt, to be read one after the other."""

    def __init__(self, run: Run, alphabet: str):
        super().__init__()
        self.run, self.alphabet = run, alphabet

    def on_epoch_end(self, epoch, logs=None):
        config = self.run.config
        write = CachedWriter(self.model, config.window, config.sampling())
        text = "".join(readable(write([prompt_codes("\n", self.alphabet)], min(300, config.length), 0), self.alphabet))
        (self.run.directory / "samples").mkdir(exist_ok=True)
        with replacing(self.run.directory / f"samples/epoch-{epoch + 1:03}.txt") as path:
            path.write_text(text + "\n", encoding="utf-8", errors="replace")


def save_sample(run: Run, model: keras.Model, alphabet: str) -> float | None:
    """Writes samples.txt; returns generated characters per second, None if there are fewer than two."""
    config = run.config
    write = CachedWriter(model, config.window, config.sampling())
    characters = readable(write([prompt_codes("\n", alphabet)], config.length, config.sample_seed), alphabet)
    text = next(characters, "")  # compiles
    start = time.perf_counter()
    text += "".join(characters)
    seconds = time.perf_counter() - start
    with replacing(run.directory / "samples.txt") as path:
        path.write_text(text + "\n", encoding="utf-8", errors="replace")
    print(text)
    return round((len(text) - 1) / seconds, 1) if len(text) > 1 else None


def evaluate(run: Run, model: keras.Model, data: TextData) -> dict[str, float]:
    """Nats and perplexity of the held-out parts; draws the figures."""
    metrics = {}
    for part in ("validation", "test"):
        nats = nats_in_windows(model, getattr(data, part), run.config.window, run.config.batch_size)
        metrics |= {f"{part}_nats": nats, f"{part}_perplexity": float(np.exp(nats))}
    run.save_figure("curves.png", plot_loss_against_tokens(run.history, len(data.train)))
    shown = data.validation[: min(32, run.config.window)]
    tokens = [data.alphabet[code] for code in shown]
    run.save_figure("attention.png", plot_attention_heads(attention_maps(model, shown), tokens))
    return metrics


def main(run: Run) -> dict[str, float]:
    config = run.config
    data = config.load()
    print(data.found)
    batches = TextBatches(data.train, config.window, config.batch_size, config.seed)

    model = build_model(config, len(data.alphabet))
    model.compile(
        build_optimizer(config, config.epochs * len(batches)),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.summary()
    run.fit(
        model,
        batches,
        data=f"{data.name} {data.fingerprint}",
        patience=config.patience or config.epochs,
        validation_data=consecutive_windows(data.validation, config.window),
        validation_batch_size=config.batch_size,
        callbacks=[TrainingSamples(run, data.alphabet)],
    )
    metrics = evaluate(run, model, data)
    speed = save_sample(run, model, data.alphabet)
    return run.finish(
        model, data.name, "validation_nats", metrics, higher_is_better=False, generated_tokens_per_second=speed,
        alphabet=data.alphabet,
    )  # fmt: skip


def predictor(run: FinishedRun) -> Callable:
    """Function from a prompt to generated text."""
    config, alphabet = run.config, run.result["alphabet"]

    @functools.lru_cache(4)
    def writer(**options: Any) -> CachedWriter:
        return CachedWriter(run.model, config.window, replace(config, **options).sampling())

    def write_on(
        prompt: Text, length: int = config.length, temperature: float = config.temperature, top_k: int = config.top_k,
        top_p: float = config.top_p, min_p: float = config.min_p,
        repetition_penalty: float = config.repetition_penalty, sample_seed: int = config.sample_seed,
    ) -> TextStream:  # fmt: skip
        """Generates the continuation of a prompt."""
        replace(config, length=length, sample_seed=sample_seed)  # checks the ranges
        if missing := set(prompt) - set(alphabet):
            print(f"left out, not in the training text: {''.join(sorted(missing))!r}", file=sys.stderr)
        write = writer(
            temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=repetition_penalty
        )
        return TextStream(readable(write([prompt_codes(prompt, alphabet)], length, sample_seed), alphabet))

    return write_on


if __name__ == "__main__":
    launch(main, Config)
