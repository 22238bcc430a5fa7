"""How Keras takes nested structures of tensors apart on PyTorch, without leaving them in memory."""

import sys
import types
from collections.abc import Callable
from typing import Any


def free_flattened_structures() -> None:
    """Lets a structure that Keras has flattened on PyTorch be freed at once, activations of each training step among
    them, and not when Python next looks for cycles.

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
