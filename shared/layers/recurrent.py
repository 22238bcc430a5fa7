"""LSTM and GRU, fused where the backend allows it."""

import keras
from keras import layers

from shared.backends.recurrent import fused_recurrence


def fused_inner_loop(layer, sequences, initial_state, mask, training):
    """Result of `layer.inner_loop` without a loop in Python or in the graph; None where only Keras's own can do it."""
    noisy = training and (layer.dropout or layer.recurrent_dropout)
    plain = layer.activation == keras.activations.tanh and layer.recurrent_activation == keras.activations.sigmoid
    if noisy or not plain or layer.unroll or layer.use_cudnn is False or not getattr(layer, "reset_after", True):
        return None
    if mask is None and sequences.shape[1] == 1:  # as when a text is written: one step needs no loop
        output, states = layer.cell(sequences[:, 0], initial_state)
        return output, output[:, None], states
    fused = fused_recurrence(
        sequences,
        list(initial_state) if isinstance(initial_state, (list, tuple)) else [initial_state],
        kernel=layer.cell.kernel,
        recurrent_kernel=layer.cell.recurrent_kernel,
        bias=layer.cell.bias,
        mask=mask[0] if isinstance(mask, (list, tuple)) else mask,
        go_backwards=layer.go_backwards,
        zero_output_for_mask=layer.zero_output_for_mask,
    )
    if fused is None:
        return None
    outputs, states = fused
    return outputs[:, -1], outputs, states


@keras.saving.register_keras_serializable("keras_recipes")
class FusedLSTM(layers.LSTM):
    """LSTM (Hochreiter and Schmidhuber 1997), as one fused operation where the backend has one.

    Options, weights and outputs are those of `keras.layers.LSTM`. It falls back to Keras's loop with activations other
    than tanh and sigmoid, `unroll`, dropout in training, or `use_cudnn=False`.
    """

    def inner_loop(self, sequences, initial_state, mask, training=False):
        fused = fused_inner_loop(self, sequences, initial_state, mask=mask, training=training)
        return super().inner_loop(sequences, initial_state, mask, training) if fused is None else fused


@keras.saving.register_keras_serializable("keras_recipes")
class FusedGRU(layers.GRU):
    """GRU (Cho et al. 2014, arXiv:1406.1078), as one fused operation where the backend has one.

    Options, weights and outputs are those of `keras.layers.GRU`. It falls back to Keras's loop with activations other
    than tanh and sigmoid, `unroll`, `reset_after=False`, dropout in training, or `use_cudnn=False`.
    """

    def inner_loop(self, sequences, initial_state, mask, training=False):
        fused = fused_inner_loop(self, sequences, initial_state, mask=mask, training=training)
        return super().inner_loop(sequences, initial_state, mask, training) if fused is None else fused
