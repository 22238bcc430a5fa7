"""A language model of characters with LSTM layers, which writes text.

Reads a text character by character and says at each how likely every character is to follow, after Graves 2013,
"Generating Sequences With Recurrent Neural Networks" (https://arxiv.org/abs/1308.0850), with dropout between the layers
as Zaremba et al. 2014 (https://arxiv.org/abs/1409.2329) place it.

    KERAS_BACKEND=jax python recipes/lstm_text.py                        tiny Shakespeare, on two CPU cores
    KERAS_BACKEND=jax python recipes/lstm_text.py --data book.txt        any text in UTF-8, or a folder of texts
    KERAS_BACKEND=jax python recipes/lstm_text.py --cell gru
    KERAS_BACKEND=jax python recipes/lstm_text.py --preset full          tiny Shakespeare, on one GPU
    KERAS_BACKEND=jax recipes predict RUN "ROMEO:"                       writes on

It learns from windows cut out of the text, each read from a state of zeros. It is measured in nats a character as it
writes, reading the held-out text as one, from its second character on, with the state carried all the way. The loss in
history.csv is that of windows, so a little higher.

The recorded runs are under results/lstm_text.
"""

import sys
from collections.abc import Callable, Iterator
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

from shared.data.text.characters import load_text
from shared.layers.recurrent import FusedGRU, FusedLSTM
from shared.text.batches import TextBatches, consecutive_windows
from shared.text.exports import exported_language_model
from shared.text.language_model import CharacterWriter, nats_a_character
from shared.text.options import TextOptions
from shared.text.samples import save_text, timed_text
from shared.training.plots import plot_curves
from shared.training.predictors import FinishedRun, Text, TextStream
from shared.training.ranges import Count, NonNegative, Positive, Rate, ranged
from shared.training.run import Run, launch
from shared.training.schedules import WarmupCosine


@dataclass(kw_only=True)
class Config(TextOptions):
    """Trains a recurrent character language model on a text, and generates text."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "test": {
            "data": "chitchat", "epochs": 1, "train_characters": 50000, "test_characters": 2000, "learning_rate": 1e-5,
        },
        "smoke": {
            "epochs": 2, "learning_rate": 1e-2, "embedding": 32, "units": 128, "depth": 1, "window": 64, "dropout": 0.0,
            "train_characters": 200_000, "test_characters": 10_000, "length": 200,
        },
        "full": {
            "epochs": 60, "batch_size": 64, "learning_rate": 2e-3, "embedding": 128, "units": 640, "depth": 3,
            "window": 256, "dropout": 0.5, "patience": 10,
        },
    }  # fmt: skip

    epochs: Count = 10
    batch_size: Count = 32
    learning_rate: Positive = 4e-3
    """The highest learning rate, of AdamW."""
    weight_decay: NonNegative = 0.01
    """Weight decay of the kernels."""
    warmup: Rate = 0.05
    """Learning-rate warmup: fraction of the steps over which it rises, before cosine decay."""
    clip: Positive = 1.0
    """Gradient clipping: maximum global norm."""
    cell: Literal["lstm", "gru"] = "lstm"
    """Long short-term memory, or gated recurrent units."""
    depth: Count = 2
    """Number of recurrent layers."""
    units: Count = 256
    """Units per layer."""
    embedding: Count = 64
    """Embedding size."""
    dropout: Rate = 0.1
    """Dropout rate of the outputs of each recurrent layer."""
    window: ranged(int, least=2) = 128
    """Sequence length of truncated backpropagation through time, in characters."""


def build_model(config: Config, characters: int) -> keras.Model:
    """Character codes (batch, steps) to logits (batch, steps, characters) of the next character, in float32."""
    recurrent = {"lstm": FusedLSTM, "gru": FusedGRU}[config.cell]
    codes = keras.Input((None,), dtype="int32")
    x = layers.Embedding(characters, config.embedding)(codes)
    for _ in range(config.depth):
        x, *_ = recurrent(config.units, return_sequences=True, return_state=True)(x)
        x = layers.Dropout(config.dropout)(x)
    logits = layers.Dense(characters, dtype="float32")(x)
    return keras.Model(codes, logits, name="language_model")


def build_optimizer(config: Config, steps: int) -> keras.optimizers.Optimizer:
    """AdamW for `steps` steps; biases have no weight decay."""
    rate = WarmupCosine(config.learning_rate, steps, config.warmup)
    optimizer = keras.optimizers.AdamW(rate, weight_decay=config.weight_decay, global_clipnorm=config.clip)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


def write(writer: CharacterWriter, config: Config, prompt: str) -> Iterator[str]:
    """Generates the continuation of a prompt, one character at a time."""
    return writer(
        prompt, length=config.length, seed=config.sample_seed, temperature=config.temperature, top_k=config.top_k,
        top_p=config.top_p, min_p=config.min_p, repetition_penalty=config.repetition_penalty,
    )  # fmt: skip


def main(run: Run) -> dict[str, float]:
    config = run.config
    data = config.limited(load_text(config.data, config.data_dir))
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
    )

    metrics = {}
    for part in ("validation", "test"):
        nats = nats_a_character(model, getattr(data, part))
        metrics |= {f"{part}_nats": nats, f"{part}_perplexity": float(np.exp(nats))}
    run.save_figure("curves.png", plot_curves(run.history, ["loss"]))
    sample, speed = timed_text(write(CharacterWriter(model, data.alphabet), config, "\n"))
    save_text(run.directory / "samples.txt", sample)
    print(sample)
    return run.finish(
        model,
        data.name,
        "validation_nats",
        metrics,
        higher_is_better=False,
        state="carried",
        generated_tokens_per_second=speed,
        alphabet=data.alphabet,
    )


def predictor(run: FinishedRun) -> Callable:
    """Function from a prompt to generated text."""
    config, alphabet = run.config, run.result["alphabet"]
    writer = CharacterWriter(run.model, alphabet)

    def write_on(
        prompt: Text,
        length: int = config.length,
        temperature: float = config.temperature,
        top_k: int = config.top_k,
        top_p: float = config.top_p,
        min_p: float = config.min_p,
        repetition_penalty: float = config.repetition_penalty,
        sample_seed: int = config.sample_seed,
    ) -> TextStream:
        """Generates the continuation of a prompt."""
        options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
        options |= {"repetition_penalty": repetition_penalty, "sample_seed": sample_seed}
        if missing := set(prompt) - set(alphabet):
            print(f"left out, not in the training text: {''.join(sorted(missing))!r}", file=sys.stderr)
        return TextStream(write(writer, replace(config, length=length, **options), prompt))

    write_on.exported = lambda: exported_language_model(run.model, alphabet, config.temperature)
    return write_on


if __name__ == "__main__":
    launch(main, Config)
