"""Metrics of text."""

import re
from itertools import pairwise
from typing import NamedTuple

from shared.text.subwords import Subwords


class BleuScore(NamedTuple):
    """A BLEU score, 0 to 100, and the signature that says how it was computed."""

    score: float
    signature: str


def sacre_bleu(hypotheses: list[str], references: list[str]) -> BleuScore:
    """BLEU of a corpus by sacreBLEU (Post 2018, arXiv:1804.08771): plain text, cased, its own tokens ("13a").

    Args:
        hypotheses: what was generated.
        references: what should have been, one for each.
    """
    from sacrebleu.metrics import BLEU

    metric = BLEU()
    score = metric.corpus_score(hypotheses, [references])
    return BleuScore(score.score, str(metric.get_signature()))


def distinct_shares(texts: list[str]) -> tuple[float, float]:
    """Distinct-1 and distinct-2: different words, and different pairs of neighbours, divided by the number of words.

    After Li et al. 2016, "A Diversity-Promoting Objective Function for Neural Conversation Models" (arXiv:1510.03055,
    section 5.2). Words are taken without regard to case, punctuation marks count as words. The more text, the lower
    both are, so compare only as much text.

    Args:
        texts: what was generated.

    Returns:
        Both between 0 and 1; 0 where there is no word.
    """
    sentences = [re.findall(r"\w+(?:'\w+)*|[^\w\s]", text.lower()) for text in texts]
    count = sum(map(len, sentences))
    words = {word for sentence in sentences for word in sentence}
    neighbours = {pair for sentence in sentences for pair in pairwise(sentence)}
    return len(words) / max(1, count), len(neighbours) / max(1, count)


def word_perplexity(perplexity: float, sequences: list[list[int]], subwords: Subwords) -> float:
    """The perplexity of a word, given that of a subword: comparable between vocabularies.

    Words are what stands between blanks; the end of a text counts as one, as it does as a subword.

    Args:
        perplexity: of a subword, END included.
        sequences: the texts that it was measured on, in subwords, END left out.
        subwords: the vocabulary.
    """
    tokens = sum(len(sequence) + 1 for sequence in sequences)
    return perplexity ** (tokens / sum(len(subwords.decode(sequence).split()) + 1 for sequence in sequences))
