"""Functions on PyTorch, recorded as the operations on tensors that they consist of."""

import types
from collections.abc import Callable
from typing import Any

from optree import tree_flatten, tree_unflatten


def recorded_inference(function: Callable, leaves: list[Any], structure: Any) -> Callable:
    """The operations on tensors that a function on PyTorch consists of, as a function.

    It is traced with tensors that have shapes and no values, so whatever asks for a value fails while it is traced and
    does not become a constant. Variables are looked at anew at each call.

    Args:
        function: to record.
        leaves: of its arguments, each a tensor or None, of the shapes to record it for.
        structure: of the arguments, by optree, which Keras's `tree` is built on.

    Returns:
        A function of such leaves; where the operations depend on values, one that runs the function as it is.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    found = []

    def flat(*leaves: Any) -> list[Any]:
        results, results_structure = tree_flatten(function(*tree_unflatten(structure, leaves)), none_is_leaf=True)
        found.append(results_structure)
        return results

    try:
        program = make_fx(flat, tracing_mode="fake", _allow_non_fake_inputs=True)(*leaves)
    except Exception:  # noqa: BLE001 - whatever it is, the function as it is will raise it again, or can do without
        return lambda *leaves: function(*tree_unflatten(structure, leaves))
    fold_constants(program)
    simplify(program)
    keep_kernels(program)
    program.graph.eliminate_dead_code()
    call_directly(program)
    program.recompile()
    forward, (results_structure,) = program.forward, found
    return lambda *leaves: tree_unflatten(results_structure, forward(*leaves))


def fold_constants(program: Any) -> None:
    """Computes what depends on neither arguments nor variables once, in place of at each call.

    Keras on PyTorch makes tensors of numbers, ranges and bounds of indices in most of its operations: of a step that
    generates a token, half of the operations and a quarter of the time.

    Args:
        program: a `torch.fx.GraphModule` of operations on tensors, changed in place.
    """
    import torch

    constants, given_away = {}, set()

    def memory(tensor: Any) -> int:
        return tensor.untyped_storage().data_ptr()

    for node in program.graph.nodes:
        if node.op == "get_attr":
            if not isinstance(value := getattr(program, node.target), torch.nn.Parameter):
                constants[node] = value
        elif node.op == "output" or node.is_impure():
            # The caller may write to what it gets, an operation in place to its first argument.
            written = node.all_input_nodes[: None if node.op == "output" else 1]
            given_away |= {memory(constants[each]) for each in written if isinstance(constants.get(each), torch.Tensor)}
        elif node.op == "call_function" and constants.keys() >= set(node.all_input_nodes):
            arguments, options = torch.fx.node.map_arg((node.args, node.kwargs), constants.get)
            constants[node] = node.target(*arguments, **options)
    for index, (node, value) in enumerate(constants.items()):
        if node.op == "call_function" and isinstance(value, torch.Tensor) and memory(value) not in given_away:
            program.register_buffer(f"constant_{index}", value, persistent=False)
            with program.graph.inserting_before(node):
                node.replace_all_uses_with(program.graph.get_attr(f"constant_{index}"), propagate_meta=True)


def simplify(program: Any) -> None:
    """Leaves out what changes nothing, and computes a dense layer, a product and a sum, as one operation.

    Args:
        program: a `torch.fx.GraphModule` of operations on tensors with the shapes in `meta`, changed in place.
    """
    import torch

    aten = torch.ops.aten
    reshapes = aten.view.default, aten._unsafe_view.default

    def described(node: Any) -> tuple[tuple[int, ...], Any] | None:
        return (tuple(node.meta["val"].shape), node.meta["val"].dtype) if "val" in node.meta else None

    def changes_nothing(node: Any) -> bool:
        if node.target == aten.clone.default:  # in the same order, of a new tensor that nothing else uses
            schema = getattr(node.args[0].target, "_schema", None)
            is_new = schema is not None and schema.returns[0].alias_info is None
            return is_new and len(node.args[0].users) == 1 and not node.kwargs
        return node.target in (*reshapes, aten.expand.default) and described(node) == described(node.args[0])

    for node in program.graph.nodes:
        if changes_nothing(node):
            node.replace_all_uses_with(node.args[0])
    for node in program.graph.nodes:
        if node.target == aten.add.Tensor and not node.kwargs and isinstance(node.args[1], torch.fx.Node):
            view, bias = node.args
            product = view.args[0] if view.target in reshapes else view
            if len(view.users) > 1 or len(product.users) > 1 or product.target != aten.mm.default:
                continue
            shape, dtype = described(product)
            if described(bias) == (shape[1:], dtype) and described(view)[0][-1] == shape[-1]:
                with program.graph.inserting_before(node):
                    dense = program.graph.call_function(aten.addmm.default, (bias, *product.args))
                    if view is not product:
                        dense = program.graph.call_function(aten.view.default, (dense, view.args[1]))
                node.replace_all_uses_with(dense)


def keep_kernels(program: Any) -> None:
    """Keeps the kernels of convolutions in the order that PyTorch's are quickest in, until their values change.

    Keras's are of another order. For a single image it takes longer to bring a kernel of many channels into order than
    to use it.

    Args:
        program: a `torch.fx.GraphModule` of operations on tensors, changed in place.
    """
    import torch

    aten = torch.ops.aten

    class Kernel(torch.nn.Module):
        """A variable with its axes permuted."""

        def __init__(self, axes: list[int]):
            super().__init__()
            self.axes = axes
            self.version = None

        def forward(self, variable: torch.Tensor) -> torch.Tensor:
            if self.version != variable._version:  # which each change in place raises
                self.kept = variable.detach().permute(self.axes).contiguous(memory_format=torch.channels_last)
                self.version = variable._version
            return self.kept

    for index, node in enumerate(program.graph.nodes):
        if node.target != aten.convolution.default:
            continue
        kernel = node.args[1]
        permuted = kernel.args[0] if kernel.target == aten.clone.default else kernel
        if permuted.target != aten.permute.default or len(permuted.args[1]) != 4:
            continue
        variable, axes = permuted.args
        if variable.op == "get_attr" and isinstance(getattr(program, variable.target), torch.nn.Parameter):
            program.add_submodule(f"kernel_{index}", Kernel(axes))
            with program.graph.inserting_before(node):
                node.replace_input_with(kernel, program.graph.call_module(f"kernel_{index}", (variable,)))


def call_directly(program: Any) -> None:
    """Calls operations by PyTorch's functions of the same name, which takes half as long as by their schema.

    Args:
        program: a `torch.fx.GraphModule` of operations on tensors, changed in place.
    """
    import torch

    for node in program.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload) and node.target.namespace == "aten":
            function = getattr(torch, node.target.overloadpacket.__name__, None)
            if isinstance(function, types.BuiltinFunctionType):  # the others are written in Python and do more
                node.target = function
