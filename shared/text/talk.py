"""A language model learns to talk: fine-tuned on conversations, then on preferences."""

import keras

from shared.data.text.conversations import Conversations
from shared.text.chat_tuning import finetune_on_conversations
from shared.text.dialogue import answer_counts, answer_pairs
from shared.text.preferences import optimize_preferences
from shared.text.subwords import Subwords
from shared.training.run import Run


def learn_to_talk(run: Run, model: keras.Model, subwords: Subwords, data: Conversations) -> dict[str, float]:
    """Fine-tunes a language model on conversations, and, if `--prefer` says so, on preferences between its own answers.

    Args:
        run: with `ChatOptions`.
        model: a decoder-only model, trained.
        subwords: its vocabulary.
        data: the conversations.

    Returns:
        The metrics of `finetune_on_conversations` and `optimize_preferences`.
    """
    config = run.config
    parts = answer_pairs(
        data, subwords, turns=config.turns, context=config.context, answer=config.answer, held_out=config.held_out
    )
    print(f"{data.name}: {data.found}; {answer_counts(data, parts)}")
    identity = f"{data.name} {data.fingerprint}"
    metrics = finetune_on_conversations(run, model, subwords, parts, identity)
    if config.prefer != "none":
        metrics |= optimize_preferences(run, model, subwords, parts, identity)
    return metrics
