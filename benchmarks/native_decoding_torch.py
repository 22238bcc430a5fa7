"""Greedy search and beam search in plain PyTorch, for the native baselines of recipes that generate text."""

import math

import torch
from torch.nn import functional
from torch.utils._pytree import tree_map

from benchmarks.native_torch import DEVICE
from shared.text.subwords import END, PAD, START, UNKNOWN


def search(step, state, rows, length, beams=1, penalty=0.0, axis=0, **options):
    """What the recipes find with so many beams, without START and END: greedy search with one.

    Args:
        step: from the last tokens (rows · beams,), their place and the state to logits (rows · beams, vocabulary) and
            the state then.
        state: before the first token, with rows · beams rows.
        rows: number of sources.
        length: tokens of a sequence at most, END included.
        beams: beam size.
        penalty: length penalty of beam search.
        axis: that of the rows in the tensors of the state.
        options: of `forbid`.
    """
    if beams > 1:
        found = beam_search(step, state, rows, length, beams, penalty, axis, **options)
    else:
        found = greedy_search(step, state, rows, length, **options)
    return [[token for token in row if token != END] for row in found.tolist()]


def forbid(logits, ids, least=0, no_repeat=0):
    """Gives tokens that must not come next a logit of minus infinity.

    Args:
        logits: (rows, vocabulary), changed in place.
        ids: (rows, tokens) so far, START first.
        least: tokens of a sequence at least, END left out.
        no_repeat: no run of so many tokens occurs twice; 0: off.
    """
    if no_repeat and ids.shape[1] >= no_repeat:
        runs = ids.unfold(1, no_repeat, 1)
        same = (runs[..., :-1] == ids[:, None, ids.shape[1] - no_repeat + 1 :]).all(dim=-1)
        logits.scatter_(1, runs[..., -1].masked_fill(~same, PAD), -math.inf)
    logits[:, [PAD, UNKNOWN, START] + [END] * (ids.shape[1] <= least)] = -math.inf


@torch.inference_mode()
def greedy_search(step, state, rows, length, **options):
    """The likeliest token again and again; see `search`."""
    ids = torch.full((rows, 1), START, device=DEVICE)
    ended = ids[:, 0] == END
    while ids.shape[1] < length and not ended.all():
        logits, state = step(ids[:, -1], ids.shape[1] - 1, state)
        forbid(logits, ids, **options)
        tokens = logits.argmax(dim=-1).masked_fill(ended, END)
        ended = ended | (tokens == END)
        ids = torch.cat([ids, tokens[:, None]], dim=1)
    return ids[:, 1:]


@torch.inference_mode()
def beam_search(step, state, rows, length, beams, penalty, axis, **options):
    """The likeliest sequences of so many beams; see `search`."""
    ids = torch.full((rows, beams, 1), START, device=DEVICE)
    scores = torch.full((rows, beams), -math.inf, device=DEVICE)
    ended_ids, ended_scores = ids, scores.clone()
    scores[:, 0] = 0  # all beams are alike: expand one
    for index in range(length):
        logits, state = step(ids[..., -1].flatten(), index, state)
        logs = logits.log_softmax(dim=-1)
        forbid(logs, ids.flatten(0, 1), **options)
        if index == length - 1:
            logs[:, END + 1 :] = -math.inf
        vocabulary = logs.shape[1]
        scores, chosen = (scores.flatten()[:, None] + logs).view(rows, -1).topk(2 * beams)
        origins, chosen = chosen // vocabulary, chosen % vocabulary
        ids = torch.cat([taken(ids, origins), chosen[..., None]], dim=-1)

        ends = chosen == END
        counts = ends & ~ended_scores.isfinite().all(dim=1, keepdim=True)
        counts[:, beams:] = False
        finals = (scores / ((6 + index) / 6) ** penalty).masked_fill(~counts, -math.inf)
        ended_scores, kept = torch.cat([ended_scores, finals], dim=1).topk(beams)
        ended_ids = taken(torch.cat([functional.pad(ended_ids, (0, 1), value=END), ids], dim=1), kept)
        if ended_scores.isfinite().all():
            break
        scores, kept = scores.masked_fill(ends, -math.inf).topk(beams)
        ids, origins = taken(ids, kept), origins.gather(1, kept)
        chosen_rows = (origins + beams * torch.arange(rows, device=DEVICE)[:, None]).flatten()
        state = tree_map(lambda x, order=chosen_rows: x.index_select(axis, order), state)
    return ended_ids[:, 0, 1:]


def taken(ids, indices):
    """Sequences (rows, count, length) of ids (rows, …, length), by their indices (rows, count)."""
    return ids.gather(1, indices[..., None].expand(-1, -1, ids.shape[2]))
