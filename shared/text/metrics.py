"""Metrics of text."""

import re
from itertools import pairwise

from shared.text.subwords import Subwords


def sacre_bleu(hypotheses: list[str], references: list[str]) -> tuple[float, str]:
    """Corpus BLEU by sacreBLEU (Post 2018, arXiv:1804.08771), 0 to 100, and the signature of its settings.

    Detokenized, cased, tokenizer "13a".

    Args:
        hypotheses: generated texts.
        references: one reference for each.
    """
    from sacrebleu.metrics import BLEU

    metric = BLEU()
    score = metric.corpus_score(hypotheses, [references])
    return score.score, str(metric.get_signature())


def distinct_n(texts: list[str]) -> tuple[float, float]:
    """Distinct-1 and distinct-2: number of distinct unigrams and bigrams, divided by the number of words.

    Li et al. 2016, "A Diversity-Promoting Objective Function for Neural Conversation Models" (arXiv:1510.03055, section
    5.2). Words are lower-cased, punctuation marks count as words. Both fall with more text: compare only texts of equal
    length.

    Args:
        texts: generated texts.

    Returns:
        Both between 0 and 1; 0 without words.
    """
    sentences = [re.findall(r"\w+(?:'\w+)*|[^\w\s]", text.lower()) for text in texts]
    count = sum(map(len, sentences))
    words = {word for sentence in sentences for word in sentence}
    neighbours = {pair for sentence in sentences for pair in pairwise(sentence)}
    return len(words) / max(1, count), len(neighbours) / max(1, count)


def word_perplexity(perplexity: float, sequences: list[list[int]], subwords: Subwords) -> float:
    """Perplexity per word, comparable between vocabularies, from the perplexity per subword.

    Words are separated by whitespace; END counts as one word, as it counts as one subword.

    Args:
        perplexity: per subword, END included.
        sequences: the evaluated texts, in subwords, without END.
        subwords: the vocabulary.
    """
    tokens = sum(len(sequence) + 1 for sequence in sequences)
    return perplexity ** (tokens / sum(len(subwords.decode(sequence).split()) + 1 for sequence in sequences))
