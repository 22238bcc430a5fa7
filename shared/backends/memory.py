"""Memory: freed by Keras on PyTorch in time, and kept by the process for the next step."""

import contextlib
import ctypes
import sys
import types
import weakref
from collections.abc import Callable
from typing import Any

import keras

TRIM_THRESHOLD = -1
MMAP_THRESHOLD = -3
"""Parameters of `mallopt` in the C library of GNU, which names them with M_ in front."""


def keep_freed_memory() -> None:
    """Lets the C library keep memory that is freed, up to 1 GiB, for what is allocated next; elsewhere it does nothing.

    By default it gives large tensors back to the system, which clears every page when it hands them out again: up to a
    tenth of the processor time of a training step on a CPU, most on PyTorch.
    """
    with contextlib.suppress(OSError, AttributeError):  # not Linux, or another C library
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(MMAP_THRESHOLD, 2**25)
        mallopt(TRIM_THRESHOLD, 2**30)


def give_back_freed_memory() -> None:
    """Gives the system back what `keep_freed_memory` kept, where tensors of other sizes come next."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def free_tensors_early() -> None:
    """Frees tensors when nothing needs them any more, as plain PyTorch does; what is computed stays the same."""
    free_flattened_structures()
    free_activations()


def free_flattened_structures() -> None:
    """Lets a structure that Keras has flattened be freed at once, not when Python next looks for cycles.

    Keras asks `tree_flatten` of PyTorch to stop below the structure, by a function that holds the structure; and that
    is kept by a function that calls itself (keras-team/keras, issue 23110).
    """
    module = sys.modules.get("keras.src.tree.torchtree_impl")
    pytree = getattr(module, "torch_tree", None)
    if not isinstance(pytree, types.ModuleType):  # done before, or another Keras
        return

    def tree_flatten(structure: Any, is_leaf: Callable[[Any], bool] | None = None) -> tuple[list, Any]:
        if is_leaf is None:
            return pytree.tree_flatten(structure)
        held = [is_leaf]
        flattened = pytree.tree_flatten(structure, is_leaf=lambda node: held[0](node))
        held.clear()
        return flattened

    module.torch_tree = types.SimpleNamespace(**vars(pytree) | {"tree_flatten": tree_flatten})


def free_activations() -> None:
    """Lets a functional model hold the output of a layer until the last layer that takes it is called.

    Keras holds all of them until the model returns, also where no gradients are computed.
    """
    import torch

    by_keras = getattr(keras.Function, "_run_through_graph", None)
    if getattr(by_keras, "__name__", "") != "_run_through_graph":  # done before, or another Keras
        return
    plans = weakref.WeakKeyDictionary()

    def run_through_graph(
        model: keras.Function, inputs: Any, operation_fn: Callable = lambda operation: operation, call_fn: Any = None
    ) -> Any:
        if call_fn is not None or torch.compiler.is_compiling():
            return by_keras(model, inputs, operation_fn, call_fn)
        if model not in plans:
            plans[model] = nodes_and_last_uses(model)
        held = dict(zip(map(id, model.inputs), keras.tree.flatten(inputs), strict=False))
        for node, no_longer_needed in plans[model]:
            if all(id(tensor) in held for tensor in node.input_tensors):
                arguments, keywords = node.arguments.fill_in(held)
                for key in no_longer_needed:
                    del held[key]
                outputs = operation_fn(node.operation)(*arguments, **keywords)
                held |= zip(map(id, node.outputs), keras.tree.flatten(outputs), strict=True)
        outputs = [held[id(tensor)] for tensor in model.outputs]
        return keras.tree.pack_sequence_as(model._outputs_struct, outputs)

    keras.Function._run_through_graph = run_through_graph


def nodes_and_last_uses(model: keras.Function) -> list[tuple[Any, set[int]]]:
    """The calls of layers in a model, in order, each with the ids of the tensors that no later one takes."""
    depths = sorted(model._nodes_by_depth.items(), reverse=True)
    nodes = [node for _, nodes in depths for node in nodes if node.operation and not node.is_input]
    needed, found = {id(tensor) for tensor in model.outputs}, []
    for node in reversed(nodes):
        taken = {id(tensor) for tensor in node.input_tensors}
        found.append((node, taken - needed))
        needed |= taken
    return found[::-1]
