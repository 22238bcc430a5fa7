"""Recurrent layers in one operation, where the running backend has it."""

import functools
from collections.abc import Callable
from typing import Any

import keras

from shared.backends.runtime import on_torch_uncompiled


def fused_recurrence(
    inputs: Any,
    states: list[Any],
    kernel: Any,
    recurrent_kernel: Any,
    bias: Any | None,
    mask: Any | None = None,
    go_backwards: bool = False,
    zero_output_for_mask: bool = False,
) -> tuple[Any, list[Any]] | None:
    """Runs an LSTM or a GRU (reset after the product) over whole sequences, its activations tanh and sigmoid.

    Keras on PyTorch runs a Python loop over the steps; XLA and TensorFlow compile it.

    Args:
        inputs: (batch, steps, features).
        states: one state (batch, units) of a GRU, or output and carry of an LSTM, before the first step.
        kernel: (features, gates × units), the gates in Keras's order: input, forget, candidate, output of an LSTM,
            update, reset, candidate of a GRU.
        recurrent_kernel: (units, gates × units).
        bias: (4 × units,) of an LSTM, (2, 3 × units) of a GRU, None for none.
        mask: (batch, steps), False where a step is left out; None for all steps.
        go_backwards: begin with the last step; the outputs then are in the order in which they were computed.
        zero_output_for_mask: give zeros for steps left out, in place of the output before them.

    Returns:
        The outputs (batch, steps, units) and the states after the last step; None where the backend has no such
        operation, or is quicker without it.
    """
    if not on_torch_uncompiled():
        return None
    import torch

    if inputs.device.type == "meta" or torch.jit.is_tracing():
        return None
    if go_backwards:
        inputs = inputs.flip(1)
        mask = None if mask is None else mask.flip(1)
    weights = torch_weights(kernel, recurrent_kernel, bias, inputs.dtype)
    if mask is None:
        return recurrence(inputs, states=states, weights=weights, batch_first=(True,))
    # As one operation, which has no gradients, it can be recorded, although its steps depend on the mask's values.
    masked = masked_recurrence if torch.is_grad_enabled() else masked_operation()
    outputs, *states = masked(inputs, states, weights, mask.bool(), zero_output_for_mask)
    return outputs, states


def torch_weights(kernel: Any, recurrent_kernel: Any, bias: Any | None, dtype: Any) -> list[Any]:
    """Weights in PyTorch's layout (gates × units, inputs), the gates of a GRU in its order: reset, update, candidate.

    A copy at each call, small beside what is computed with it.
    """
    import torch

    weights = [keras.ops.cast(kernel, dtype), keras.ops.cast(recurrent_kernel, dtype)]
    if bias is not None:
        bias = keras.ops.cast(bias, dtype)
        weights += [bias, torch.zeros_like(bias)] if bias.ndim == 1 else [bias[0], bias[1]]
    if kernel.shape[-1] == 3 * recurrent_kernel.shape[0]:
        gates = [weight.chunk(3, dim=-1) for weight in weights]
        weights = [torch.cat([reset, update, candidate], dim=-1) for update, reset, candidate in gates]
    return [weight.T.contiguous() if weight.ndim == 2 else weight for weight in weights]


def recurrence(
    *sequences: Any, states: list[Any], weights: list[Any], batch_first: tuple[bool, ...] = ()
) -> tuple[Any, list[Any]]:
    """PyTorch's LSTM or GRU over sequences of one length, or packed, with `torch_weights`: outputs and last states."""
    import torch

    operation = torch.lstm if len(states) == 2 else torch.gru
    states = [state.unsqueeze(0) for state in states]
    # One layer, without dropout, one direction. On a GPU, only what ran as in training can be differentiated.
    options = (len(weights) == 4, 1, 0.0, torch.is_grad_enabled(), False, *batch_first)
    outputs, *states = operation(*sequences, states if len(states) == 2 else states[0], weights, *options)
    return outputs, [state.squeeze(0) for state in states]


@functools.cache
def masked_operation() -> Callable:
    """`masked_recurrence` as an operation of PyTorch."""
    import torch

    schema = "(Tensor inputs, Tensor[] states, Tensor[] weights, Tensor mask, bool zero_output_for_mask) -> Tensor[]"
    operation = torch.library.custom_op(
        "keras_recipes::masked_recurrence", masked_recurrence, mutates_args=(), schema=schema
    )

    @operation.register_fake
    def shapes(inputs: Any, states: list[Any], weights: Any, mask: Any, zero_output_for_mask: bool) -> list[Any]:
        return [inputs.new_empty((*inputs.shape[:2], states[0].shape[1])), *map(torch.empty_like, states)]

    return operation


def masked_recurrence(
    inputs: Any, states: list[Any], weights: list[Any], mask: Any, zero_output_for_mask: bool
) -> list[Any]:
    """Outputs and states of `recurrence` with a mask of any form: the steps that count are moved to the front, and
    their outputs back.
    """
    import torch
    from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

    steps, count = inputs.shape[1], mask.sum(dim=1)
    front = torch.argsort((~mask).int(), dim=1, stable=True)
    inputs = taken_steps(inputs, front)
    # PyTorch wants at least one step of each sequence; what comes of it is put right below.
    packed = pack_padded_sequence(inputs, count.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
    states_sorted = [state[packed.sorted_indices] for state in states]
    outputs, finals = recurrence(packed.data, packed.batch_sizes, states=states_sorted, weights=weights)
    finals = [
        torch.where(count.unsqueeze(-1) > 0, final[packed.unsorted_indices], state)
        for final, state in zip(finals, states, strict=True)
    ]
    outputs, _ = pad_packed_sequence(PackedSequence(outputs, *packed[1:]), batch_first=True, total_length=steps)
    place = mask.cumsum(dim=1)
    outputs = taken_steps(outputs, (place - 1).clamp(min=0))
    shown = mask if zero_output_for_mask else place > 0
    return [outputs * shown.unsqueeze(-1), *finals]


def taken_steps(x: Any, steps: Any) -> Any:
    """Of each sequence of x (batch, steps, size) the steps at indices (batch, count): whole rows, both ways."""
    import torch

    rows = steps + torch.arange(len(x), device=x.device).unsqueeze(1) * x.shape[1]
    return torch.nn.functional.embedding(rows, x.flatten(0, 1))
