"""Direct preference optimization (DPO) of a fine-tuned language model, on answers that a rule tells apart.

Rafailov et al. 2023, "Direct Preference Optimization: Your Language Model is Secretly a Reward Model"
(arXiv:2305.18290). Both answers of a pair are the model's own, and the rule ranks them in place of a person, so that
how well it worked can be counted.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from shared.errors import UsageError
from shared.text.causal_model import CachedWriter
from shared.text.chat_tuning import chat_prompt, dialogue_metrics, prompts_with_answers
from shared.text.dialogue import evenly_spread, readable_context
from shared.text.pairs import SequencePairs
from shared.text.samples import save_text
from shared.text.sampling import Sampling
from shared.text.subwords import END, PAD, Subwords
from shared.training.batches import ArrayBatches
from shared.training.run import Run
from shared.training.schedules import WarmupCosine

PREFERENCES: dict[str, Callable[[str], bool]] = {
    "questions": lambda answer: answer.endswith("?"),
    "brevity": lambda answer: 0 < len(answer.split()) <= 5,
}
"""Whether a finished answer is of the preferred kind."""


ANSWERS_EACH = 4
"""Answers sampled to each prompt."""


ANSWERING = Sampling(0.8, end=END)
"""How they are sampled: not by the options for generated text, which a resumed run may change, and pairs may not."""


PROMPTS_AT_ONCE = 16


HELD_OUT_PROMPTS = 200
"""Test contexts that are answered before and after."""


SHOWN = 20
"""Of them, those in answers.txt."""


class PreferencePairs(NamedTuple):
    """Two answers to each prompt; ids, the answers with END where they ended."""

    prompts: list[list[int]]
    chosen: list[list[int]]
    rejected: list[list[int]]


def sampled_answers(writer: CachedWriter, prompts: list[list[int]], length: int, seed: int) -> list[list[list[int]]]:
    """`ANSWERS_EACH` answers to each prompt, as ids, with END where they ended.

    Args:
        writer: of the model, with a method that samples and that END ends.
        prompts: ids.
        length: tokens of the longest answer.
        seed: of sampling.
    """
    by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers: list[list[list[int]]] = [[] for _ in prompts]
    for first in range(0, len(prompts), PROMPTS_AT_ONCE):
        chosen = by_length[first : first + PROMPTS_AT_ONCE]
        filled = chosen + chosen[:1] * (PROMPTS_AT_ONCE - len(chosen))
        rows = [prompts[index] for index in filled for _ in range(ANSWERS_EACH)]
        written = np.stack(list(writer(rows, length, seed + first)), axis=1).tolist()
        shortest = len(prompts[chosen[0]])
        for index, row in zip(np.repeat(chosen, ANSWERS_EACH).tolist(), written, strict=False):
            answer = row[len(prompts[index]) - shortest :][:length]
            answers[index].append(answer[: answer.index(END) + 1] if END in answer else answer)
    return answers


def pairs_by_rule(
    prompts: list[list[int]], answers: list[list[list[int]]], preferred: Callable[[list[int]], bool]
) -> PreferencePairs:
    """For each prompt the first answer that is preferred and the first that is not, if there are both."""
    pairs = PreferencePairs([], [], [])
    for prompt, sampled in zip(prompts, answers, strict=True):
        verdicts = [preferred(answer) for answer in sampled]
        if len(set(verdicts)) == 2:
            pairs.prompts.append(prompt)
            pairs.chosen.append(sampled[verdicts.index(True)])
            pairs.rejected.append(sampled[verdicts.index(False)])
    return pairs


PREFERENCE_INPUTS = "chosen", "chosen_labels", "rejected", "rejected_labels"


def preference_model(model: keras.Model, beta: float) -> keras.Model:
    """The difference between the implicit rewards β log(π / π_ref) of two answers, as a model to be trained by `fit`.

    Its binary cross-entropy with the label 1 is the loss of DPO (equation 7).

    Args:
        model: π, from ids (batch, length) to logits (batch, length, tokens).
        beta: β: the higher, the less π may differ from the reference model π_ref.

    Returns:
        From ids "chosen" and "rejected" (batch, length), their labels "chosen_labels" and "rejected_labels", and the
        difference "reference" (batch,) of the log-likelihoods under the reference model, to a logit (batch,).
    """
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in PREFERENCE_INPUTS}

    def log_likelihood(name: str) -> Any:
        """Of the answer, (batch,): where there are labels."""
        labels = inputs[f"{name}_labels"]
        losses = ops.sparse_categorical_crossentropy(labels, model(inputs[name]), from_logits=True)
        return -ops.sum(losses * ops.cast(ops.not_equal(labels, PAD), "float32"), axis=1)

    reference = keras.Input((), name="reference")
    logit = beta * (log_likelihood("chosen") - log_likelihood("rejected") - reference)
    return keras.Model(inputs | {"reference": reference}, logit, name="preference")


def preference_inputs(pairs: PreferencePairs, model: keras.Model, batch_size: int) -> dict[str, np.ndarray]:
    """The inputs of `preference_model`, the reference model being the model as it is now."""
    chosen, rejected = (prompts_with_answers(pairs.prompts, answers) for answers in (pairs.chosen, pairs.rejected))
    inputs = dict(zip(PREFERENCE_INPUTS, (*chosen, *rejected), strict=True))
    inputs["reference"] = np.zeros(len(pairs.prompts), "float32")
    margins = preference_model(model, 1.0).predict(inputs, batch_size=batch_size, verbose=0)
    return inputs | {"reference": margins}


def train_on_pairs(run: Run, model: keras.Model, inputs: dict[str, np.ndarray], data: str) -> keras.Model:
    """Trains a model on the inputs of pairs, and returns its preference model, compiled."""
    config, count = run.config, len(inputs["reference"])
    batches = ArrayBatches(inputs, np.ones(count, "float32"), min(config.finetune_batch_size, count), config.seed)
    rate = WarmupCosine(config.preference_learning_rate, config.preference_epochs * len(batches), 0.1)
    preference = preference_model(model, config.preference_beta)
    preference.compile(
        keras.optimizers.Adam(rate, global_clipnorm=1.0), keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy("accuracy", threshold=0.0)],
    )  # fmt: skip
    run.fit(preference, batches, data=data, phase="preferences", epochs=config.preference_epochs)
    return preference


def optimize_preferences(
    run: Run, model: keras.Model, subwords: Subwords, parts: dict[str, SequencePairs], data: str
) -> dict[str, float]:
    """Trains a fine-tuned model by DPO to answer as the rule of `--prefer` wants.

    Writes answers.txt, with answers to held-out conversations before and after.

    Args:
        run: with `ChatOptions`.
        model: fine-tuned and compiled; as it is now it is the reference model, too.
        subwords: its vocabulary.
        parts: contexts and answers, see `answer_pairs`.
        data: name and fingerprint of the conversations.

    Returns:
        Of sampled answers to held-out contexts, the rates `preferred_rate_before` and `preferred_rate_after`;
        `preference_accuracy`, how often the implicit reward ranks held-out pairs as the rule does; and
        `dialogue_word_nats_after`, which rises as the model goes away from how people answer.

    Raises:
        UsageError: there are no pairs, since the rule holds for all answers to a prompt or for none.
    """
    config, batch_size = run.config, run.config.finetune_batch_size
    writer = CachedWriter(model, config.window, ANSWERING)

    def preferred(answer: list[int]) -> bool:
        return END in answer and PREFERENCES[config.prefer](subwords.decode(answer).strip())

    def rate(answers: list[list[list[int]]]) -> float:
        return float(np.mean([preferred(answer) for sampled in answers for answer in sampled]))

    contexts = {
        "train": evenly_spread(parts["train"], config.preference_prompts).sources,
        "test": evenly_spread(parts["test"], HELD_OUT_PROMPTS).sources,
    }
    prompts = {part: [chat_prompt(context) for context in each] for part, each in contexts.items()}
    answers = {part: sampled_answers(writer, each, config.answer, config.seed) for part, each in prompts.items()}
    pairs = {part: pairs_by_rule(prompts[part], answers[part], preferred) for part in prompts}
    train, test = (len(each.prompts) for each in pairs.values())
    print(f"--prefer {config.prefer}: {train:,} pairs of answers for training, {test:,} for testing")
    if not train or not test:
        raise UsageError(f"--prefer {config.prefer} needs answers of both kinds: raise --preference-prompts")
    inputs = {part: preference_inputs(each, model, batch_size) for part, each in pairs.items()}
    preference = train_on_pairs(run, model, inputs["train"], data)
    after = sampled_answers(writer, prompts["test"], config.answer, config.seed)
    shown = [
        f"{readable_context(context, subwords)}\n  before: {subwords.decode(old)}\n  after:  {subwords.decode(new)}\n"
        for context, (old, *_), (new, *_) in zip(contexts["test"], answers["test"], after, strict=True)
    ]
    save_text(run.directory / "answers.txt", "\n".join(shown[:SHOWN]))
    ranked = preference.evaluate(inputs["test"], np.ones(test, "float32"), return_dict=True, verbose=0)
    return {
        "preferred_rate_before": rate(answers["test"]), "preferred_rate_after": rate(after),
        "preference_accuracy": ranked["accuracy"],
        "dialogue_word_nats_after": dialogue_metrics(model, parts["test"], subwords, batch_size)["dialogue_word_nats"],
    }  # fmt: skip
