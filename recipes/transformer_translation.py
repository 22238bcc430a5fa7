"""Translation with a Transformer.

An encoder–decoder after Vaswani et al. 2017, "Attention is all you need" (https://arxiv.org/abs/1706.03762), normalized
before each part, translates descriptions of photographs from German to English: Multi30k, 29,000 sentence pairs. The
weights that translate are an exponential moving average over the last steps, which does what averaging the last
checkpoints does, and is in each checkpoint already. Search is by beams, with keys and values kept from token to token.

    KERAS_BACKEND=jax python recipes/transformer_translation.py                          Multi30k, on two CPU cores
    KERAS_BACKEND=jax python recipes/transformer_translation.py --preset full            Multi30k, on one GPU
    KERAS_BACKEND=jax python recipes/transformer_translation.py --data text.de,text.en   any two files of aligned lines
    KERAS_BACKEND=jax python recipes/transformer_translation.py --data deu.txt           or one file: tabs, CSV, JSON
    KERAS_BACKEND=jax recipes predict RUN "Ein Hund läuft."                              translates
    KERAS_BACKEND=jax recipes predict RUN - < german.txt                                 line by line

What it never read in a description of a photograph, it cannot translate. The recorded runs are under
results/transformer_translation.
"""

import functools
import sys
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
from keras import layers, ops

from shared.data.text.parallel_corpus import ParallelText, SentencePairs, load_parallel
from shared.errors import UsageError
from shared.layers.positions import SinusoidalPositions
from shared.text.exports import exported_translator
from shared.text.losses import Perplexity, SequenceLoss
from shared.text.metrics import sacre_bleu
from shared.text.pairs import HeldOutPairs, PairBatches, SequencePairs
from shared.text.plots import plot_attention
from shared.text.samples import save_text
from shared.text.subwords import PAD, Subwords, kept_subwords, read_subwords
from shared.text.transformer import TokenEmbedding, TransformerDecoder, TransformerEncoder
from shared.text.translator import LONGEST, Translator
from shared.training.options import Options
from shared.training.plots import plot_curves
from shared.training.predictors import FinishedRun, Text
from shared.training.ranges import Count, Limit, Number, Positive, Rate
from shared.training.run import Run, launch
from shared.training.schedules import WarmupInverseSquareRoot


@dataclass(kw_only=True)
class Config(Options):
    """Trains a Transformer on sentence pairs: Multi30k, ted_hrlr_translate, files of one's own, or dates and names."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "test": {
            "data": "cldr", "epochs": 1, "train_examples": 600, "vocabulary": 500, "test_examples": 20,
            "learning_rate": 1e-5,
        },
        "smoke": {
            "epochs": 3, "batch_size": 32, "learning_rate": 4e-3, "warmup_steps": 60, "ema": 0.9, "vocabulary": 1000,
            "width": 64, "depth": 1, "heads": 2, "hidden": 128, "dropout": 0.0, "train_examples": 3000, "beams": 1,
            "shapes": 3, "test_examples": 100,
        },
        "full": {
            "epochs": 80, "batch_size": 128, "learning_rate": 2e-3, "warmup_steps": 2000, "ema": 0.999,
            "vocabulary": 8000, "depth": 4, "hidden": 1024, "dropout": 0.3,
        },
    }  # fmt: skip

    free_on_resume: ClassVar[tuple[str, ...]] = ("beams", "length_penalty")

    epochs: Count = 8
    batch_size: Count = 64
    """Sentence pairs a step, on average; steps of short ones have more, those of long ones fewer."""
    learning_rate: Positive = 1e-3
    """The highest learning rate."""
    warmup_steps: Count = 600
    """Learning-rate warmup steps, before inverse square root decay."""
    ema: Rate = 0.998
    """Decay of the exponential moving average (EMA) of the weights, which is evaluated and saved; 0: none."""
    vocabulary: Count = 5000
    """Vocabulary size, in subwords, shared by both languages."""
    width: Count = 256
    """Model width."""
    depth: Count = 3
    """Blocks of the encoder, and of the decoder."""
    heads: Count = 4
    """Attention heads, which share the width."""
    hidden: Count = 512
    """Hidden width of the feed-forward layers."""
    dropout: Rate = 0.1
    """Dropout rate."""
    positions: Literal["sinusoidal", "rotary"] = "sinusoidal"
    """Positional encoding: sinusoidal, added to the embeddings, or rotary (RoPE), of queries and keys."""
    label_smoothing: Rate = 0.1
    """Label smoothing factor."""
    shapes: Count = 8
    """Number of length buckets: more buckets, less padding, more compilations."""
    beams: Count = 5
    """Beam size."""
    length_penalty: Number = 1.0
    """Length penalty of beam search; higher prefers longer translations."""
    train_examples: Limit = None
    """Limit training to the first N pairs."""
    test_examples: Limit = None
    """Limit evaluation to the first N test pairs."""

    def __post_init__(self):
        super().__post_init__()
        rule = f"must be a multiple of twice the {self.heads} heads"
        self.require("width", self.width > 0 and self.width % (2 * self.heads) == 0, rule)


def build_model(config: Config, vocabulary: int) -> keras.Model:
    """Sources (batch, m) and targets (batch, n), ids, to logits (batch, n, vocabulary) of each next token."""
    source = keras.Input((None,), dtype="int32", name="source")
    target = keras.Input((None,), dtype="int32", name="target")
    embedding = TokenEmbedding(vocabulary, config.width, name="embedding")
    positions = SinusoidalPositions(name="positions") if config.positions == "sinusoidal" else layers.Identity()
    dropout = layers.Dropout(config.dropout, name="dropout")
    stack = {
        "depth": config.depth, "heads": config.heads, "hidden": config.hidden, "dropout": config.dropout,
        "rotary": config.positions == "rotary",
    }  # fmt: skip
    key_mask = ops.not_equal(source, PAD)
    memory = TransformerEncoder(**stack, name="encoder")(dropout(positions(embedding(source))), key_mask=key_mask)
    inputs = dropout(positions(embedding(target)))
    outputs = TransformerDecoder(**stack, name="decoder")(inputs, memory, key_mask=key_mask)
    logits = embedding(outputs, reverse=True)
    return keras.Model({"source": source, "target": target}, logits, name="transformer")


def build_optimizer(config: Config) -> keras.optimizers.Optimizer:
    rate = WarmupInverseSquareRoot(config.learning_rate, config.warmup_steps)
    return keras.optimizers.Adam(
        rate, beta_2=0.98, epsilon=1e-9, use_ema=config.ema > 0, ema_momentum=config.ema or 0.99
    )


def encoded_pairs(subwords: Subwords, pairs: SentencePairs) -> SequencePairs:
    return SequencePairs(*([subwords.encode(line) for line in side] for side in pairs))


def short_pairs(subwords: Subwords, data: ParallelText) -> dict[str, SequencePairs]:
    """Training and validation pairs without those that are too long; prints how many there are."""
    parts = {part: encoded_pairs(subwords, getattr(data, part)) for part in ("train", "validation")}
    short = {part: pairs.within(LONGEST - 1, LONGEST - 1) for part, pairs in parts.items()}
    too_long = sum(len(parts[part].sources) - len(short[part].sources) for part in parts)
    print(f"{data.name}: {data.found}; {too_long:,} pairs of more than {LONGEST - 1} subwords left out")
    if not all(pairs.sources for pairs in short.values()):
        raise UsageError(f"{data.name}: nearly all pairs have more than {LONGEST - 1} subwords: put a sentence a line")
    return short


def main(run: Run) -> dict[str, float]:
    config = run.config
    data = load_parallel(config.data, config.data_dir, config.train_examples)
    lines, identity = [*data.train.sources, *data.train.targets], f"{data.name} {data.fingerprint}"
    exactly = not config.is_of_preset("vocabulary")
    subwords = kept_subwords(run.directory / "subwords.model", lines, config.vocabulary, exactly=exactly, data=identity)
    pairs = short_pairs(subwords, data)
    most = len(pairs["train"].sources)
    config.require("batch_size", config.batch_size <= most, f"must be at most the {most} training pairs")
    batches = PairBatches(pairs["train"], config.batch_size, config.seed, config.shapes)

    model = build_model(config, len(subwords))
    model.compile(build_optimizer(config), SequenceLoss(config.label_smoothing), metrics=[Perplexity()])
    model.summary()
    validation = HeldOutPairs(pairs["validation"], batches.buckets)
    run.fit(model, batches, data=identity, validation_data=validation)

    test = SentencePairs(*(side[: config.test_examples] for side in data.test))
    translate = Translator(model, subwords, config.beams, config.length_penalty)
    translations = translate(test.sources, batch_size=50)
    bleu, signature = sacre_bleu(translations, test.targets)
    perplexity = model.evaluate(validation, return_dict=True, verbose=0)["perplexity"]
    run.save_figure("curves.png", plot_curves(run.history, ["loss", "perplexity"]))
    run.save_figure("attention.png", plot_attention([translate.attention_to(test.sources[0], translations[0])]))
    rows = zip(*test, translations, strict=True)
    save_text(run.directory / "translations.txt", "\n\n".join("\n".join(row) for row in rows))
    return run.finish(
        model, data.name, "bleu", {"bleu": bleu, "perplexity": perplexity},
        signature=signature, subwords=len(subwords), generated_tokens_per_second=translate.tokens_per_second(),
        tokens_per_example=round(pairs["train"].lengths()[:, 1].mean(), 2),
    )  # fmt: skip


def predictor(run: FinishedRun) -> Callable:
    """Function from a sentence to its translation."""
    config, subwords = run.config, read_subwords(run.directory / "subwords.model")

    @functools.lru_cache(4)
    def translator(beams: int, length_penalty: float) -> Translator:
        replace(config, beams=beams, length_penalty=length_penalty)  # checks the ranges
        return Translator(run.model, subwords, beams, length_penalty)

    def translate(text: Text, beams: int = config.beams, length_penalty: float = config.length_penalty) -> Text:
        """Translates a sentence."""
        (translation,) = translator(beams, length_penalty)([text.strip()])
        return Text(translation)

    translate.several = lambda texts, **options: translator(**options).several(texts)
    translate.exported = lambda: exported_translator(
        run.model, translator(config.beams, config.length_penalty), run.directory
    )
    return translate


if __name__ == "__main__":
    launch(main, Config)
