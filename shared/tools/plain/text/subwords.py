"""Subword vocabulary by byte-pair encoding (BPE)."""

from collections.abc import Iterable
from pathlib import Path

import sentencepiece

from shared.text.subwords import END, PAD, START, UNKNOWN


class Subwords(sentencepiece.SentencePieceProcessor):
    """Tokenizer: `encode` text to subword ids, and `decode` ids."""

    def __init__(self, model: bytes):
        super().__init__(model_proto=model)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids, without `PAD`, `START` and `END`."""
        return super().decode([int(number) for number in ids])


def kept_subwords(
    path: Path, lines: Iterable[str], size: int, symbols: tuple[str, ...] = (), keep_spaces: bool = False
) -> Subwords:
    """A byte-pair encoding, BPE (Sennrich et al. 2016, arXiv:1508.07909), that is trained unless the file is there."""
    if not path.exists():
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_prefix=str(path.with_suffix("")), model_type="bpe", vocab_size=size,
            hard_vocab_limit=False, pad_id=PAD, unk_id=UNKNOWN, bos_id=START, eos_id=END,
            user_defined_symbols=list(symbols), byte_fallback=True, character_coverage=0.9995,
            normalization_rule_name="identity", remove_extra_whitespaces=not keep_spaces,
            add_dummy_prefix=not keep_spaces, max_sentence_length=2**24, num_threads=1, minloglevel=2,
        )  # fmt: skip
    return Subwords(path.read_bytes())


def read_subwords(path: Path) -> Subwords:
    """The vocabulary of a run."""
    return Subwords(path.read_bytes())
