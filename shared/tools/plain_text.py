"""What a plain copy leaves out of the text of a file, and what it writes otherwise."""

import ast
import copy
import functools
import re
import textwrap
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

from shared.tools.collecting import counterpart_of, names_bound, nodes_of, parsed

HOOKS = {
    "build", "call", "compute_output_shape", "compute_output_spec", "get_config", "from_config", "update_state",
    "result", "reset_state", "num_batches", "on_epoch_begin", "on_epoch_end", "on_train_begin", "on_train_end",
    "on_train_batch_begin", "on_train_batch_end", "on_test_begin", "on_test_end", "get_current_value", "add_update",
    "find_class", "persistent_load", "computeIoU",
}  # fmt: skip
"""Methods that Keras, Python and other packages call."""


PACKAGES = ("np", "keras", "ops", "layers", "ImageOps", "sentencepiece")
"""Modules, whose functions are no methods of what has these names too."""


DONE_BY_KERAS = ("used_rows",)
"""Functions that only make their argument quicker, in whose place a plain copy has the argument."""


IDIOMS = (
    (r'f"\{data\.name\} \{data\.fingerprint\}"', "data.name"),
    (r"\n *facts = \(weights, .*\n *name = .*(?=\n)", ""),
    (r"cached_arrays\(.*, (\w+)\)", r"\1()"),
    (r"\n *super\(\).__post_init__\(\)(?=\n)", ""),
    (r"config\.facts\(.*?\)( \| |\n *facts \|= )", ""),
    (r"(,| \|) (\*\*)?network\.facts", ""),
    (r"\{network\.facts\['judge'\]\}", "{network.name}"),
    (r"network\.outputs\(((?:[^()]|\([^()]*\))*)\)", r"network.predict(\1, batch_size=100, verbose=0)"),
    (r"return built_optimizer\((\w+), (\w+), config\.precision\)", r"\1.build(\2.trainable_variables)\n    return \1"),
    (r"replace\(run\.config, seed=seed\)\.seed", "seed"),
    (r"save_text\((run\.directory / .*?), (.*)\)(?=\n)", r'(\1).write_text(\2 + "\\n", encoding="utf-8")'),
    (
        r"\n( *)(\w+) = copied_model\((\w+)\)",
        r"\n\1\2 = keras.models.clone_model(\3)\n\1\2.set_weights(\3.get_weights())",
    ),
    (
        r"self\.load_data\((.*)\)",
        (
            r"load_images(self.data, self.data_dir, \1, limit=self.train_examples, "
            r"size=self.image_size, test_limit=self.test_examples)"
        ),
    ),
    (r";? see `\w+` and `shared\.[\w.]*`", ""),
    (r" See `shared\.[\w.]*`( for the arguments)?\.", ""),
    (r"; see `shared\.[\w.]*`", ""),
    (r"; (for its arguments )?see `Transformer\w+`", ""),
    (r"run\.recorders\[(.*?)\]\.history", r"run.histories[\1]"),
    (r"; a UsageError if the options do not fit them", ""),
    (r"\n *check_initial_classes\(.*\)(?=\n)", ""),
    (r"\n *self\.run\.tracking\..*\)(?=\n)", ""),
    (r"\n *replace\(.*\)  # checks the ranges(?=\n)", ""),
    (r'\n *facts\["collapsed"\] = .*(?=\n)', ""),
    (r', "diversity"\](?=\))', "]"),
    (r"\n *watch: Watcher \| None = None,", ""),
    (r"\n( *)if .*:\n *raise ValueError\(.*\)(?=\n)", ""),
    (r'\n *facts \|= \{"(subwords|tokens_per_example)".*(?=\n)', ""),
    (r",\n *tokens_per_example=.*(?=,\n)", ""),
    (r"; \{answer_counts\(data, parts\)\}", ""),
    (r',? ("?)generated_tokens_per_second\1(=|: )\w+\.tokens_per_second\(\)', ""),
    (r"\bmethod: Method\b", "method: Any"),
    (r"-> Method:", "-> Any:"),
    (r"(?<!class )\bSequenceDense\(", "layers.Dense("),
)
"""What stands otherwise in a plain copy, as regular expressions: nothing is cached, timed or checked to be the same
there."""


FIGURES_LEFT_OUT = {"attention.png", "interpolation.png", "precision.png"}
"""Figures that a plain copy leaves out, with all that is there for them alone."""


TYPES = {
    "UsageError": "SystemExit", "Count": "int", "Limit": "int | None", "Whole": "int", "Number": "float",
    "Positive": "float", "NonNegative": "float", "Fraction": "float", "Rate": "float", "Part": "float",
    "EvaluationNetwork": "keras.Model",
}  # fmt: skip
"""What stands for this project's own types. `SystemExit` ends a program with its message."""


NEW_TYPES = {
    "Picture": "Image.Image", "Pictures": "list[Image.Image]", "Text": "str", "TextStream": "Iterator[str]",
    "Conversation": "list[str]", "ClassName": "str", "Probabilities": "dict[str, float]", "Boxes": "list[Box]",
    "Mask": "Image.Image",
    "Watcher": "Callable[[list[Image.Image]], None]",
}  # fmt: skip
"""What is behind the types that predictors take and give."""


IMPORTS = (
    ("Image.", "from PIL import Image"),
    ("Iterator[", "from collections.abc import Iterator"),
    ("Box]", "from shared.training.predictors import Box"),
    ("keras.Model", "import keras"),
    ("load_images(", "from shared.data.images.datasets import load_images"),
)
"""What a file then needs where it holds this."""


def edited(text: str, find: Callable[[ast.Module], Iterator[tuple[ast.AST, str]]]) -> str:
    """A text with other text in place of some nodes of its syntax tree, which do not overlap.

    Args:
        text: Python.
        find: gives the nodes, and what shall stand there; "" to leave a statement out with its decorators, and the
            comments and docstring of a field.
    """
    found = list(find(parsed(text)))
    if not found:
        return text
    lines = [line.encode() for line in text.splitlines(keepends=True)]
    starts = [sum(map(len, lines[:number])) for number in range(len(lines))]
    whole = b"".join(lines)
    places = []
    for node, new in found:
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        if new == "":
            first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])
            start, end = starts[first - 1], starts[node.end_lineno] if node.end_lineno < len(lines) else len(whole)
        places.append((start, end, new))
    for start, end, new in sorted(places, reverse=True):
        whole = whole[:start] + new.encode() + whole[end:]
    return whole.decode()


SHAPES = re.compile(r"\s*(Inputs?|Output|Yields)\b")
"""How a paragraph of a docstring begins that says what shapes a layer takes and gives."""


def shorter_docstring(docstring: str, indent: int) -> str:
    """A docstring as it stands in the source, with its first paragraph and its shapes alone."""
    first, *others = re.split(r"\n\s*\n", docstring.strip('"').strip())
    first = re.sub(r":$", "", first)
    kept = [first, *(each for each in others if SHAPES.match(each))]
    text = " ".join(" ".join(each if re.search(r"[.:]$", each) else f"{each}." for each in kept).split())
    lines = textwrap.wrap(f'"""{text}"""', 120 - indent, break_long_words=False, break_on_hyphens=False)
    return ("\n" + " " * indent).join(lines)


def docstrings(text: str, tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """The docstrings, and the same in short."""
    for node in nodes_of(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            yield node.body[0], shorter_docstring(ast.get_source_segment(text, node.body[0]), node.body[0].col_offset)


def other_backends(text: str, tree: ast.Module, backends: tuple[str, ...]) -> Iterator[tuple[ast.AST, str]]:
    """The cases of other backends; where one case is left, it takes the place of the `match`."""
    for node in nodes_of(tree):
        if not isinstance(node, ast.Match) or ast.unparse(node.subject) != "keras.config.backend()":
            continue
        named = {case.pattern.value.value for case in node.cases if isinstance(case.pattern, ast.MatchValue)
                 and not case.guard}  # fmt: skip
        kept = [
            case
            for case in node.cases
            if (case.pattern.value.value in backends if isinstance(case.pattern, ast.MatchValue)
                else not named.issuperset(backends))
        ]  # fmt: skip
        lines = text.splitlines()
        bodies = ["\n".join(lines[case.pattern.lineno - 1 : case.body[-1].end_lineno]) for case in kept]
        indent = " " * node.col_offset
        if len(kept) == 1 and not kept[0].guard:
            body = textwrap.indent(textwrap.dedent(bodies[0].partition("\n")[2]), indent)
            yield node, body.removeprefix(indent)
        else:
            yield node, "\n".join([f"match {ast.unparse(node.subject)}:", *bodies])


def unwrapped(text: str, tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """The calls of `DONE_BY_KERAS`, and their arguments."""
    for node in nodes_of(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in DONE_BY_KERAS:
            yield node, ast.get_source_segment(text, node.args[0])


def plain_types(text: str, tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """Types of Python in place of this project's."""
    made = set()
    for node in nodes_of(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"ranged", *NEW_TYPES}:
            made.update(nodes_of(node))
            if node.func.id in NEW_TYPES:
                yield node, ast.get_source_segment(text, node.args[0])
            else:
                optional = any(each.arg == "optional" for each in node.keywords)
                yield node, ast.unparse(node.args[0]) + " | None" * optional
        elif isinstance(node, ast.Name) and node not in made and node.id in TYPES | NEW_TYPES:
            yield node, (TYPES | NEW_TYPES)[node.id]


def bundled_presets(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """The preset "test", on data that are bundled with the project."""
    for node in nodes_of(tree):
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "presets":
            for key, value in zip(node.value.keys, node.value.values, strict=True):
                if key.value == "test":
                    entry = copy.copy(key)
                    entry.end_lineno = value.end_lineno
                    yield entry, ""


PURE = {"min", "max", "len", "zip", "decode", "is_of_preset", "copied_weights"}
"""Functions and methods that do nothing but give a result."""


def is_pure(value: ast.expr) -> bool:
    """Whether nothing is missed where an expression is left out."""
    calls = [node.func for node in nodes_of(value) if isinstance(node, ast.Call)]
    return all(getattr(each, "id", getattr(each, "attr", "")) in PURE for each in calls)


def unused_in(function: ast.FunctionDef, gone: list[ast.stmt], missed: bool = True) -> list[ast.stmt]:
    """Of the statements of a function, those that assign what only some others look up, with these `gone` first.

    Args:
        function: the function.
        gone: the others.
        missed: whether it would be missed what assignments do beside giving a value.
    """
    looked_up = {node.id for each in gone for node in nodes_of(each) if isinstance(node, ast.Name)}
    assigned = [node for node in nodes_of(function) if isinstance(node, ast.Assign)]
    assigned = [each for each in assigned if is_pure(each.value) or (not missed and looked_up & set(names_bound(each)))]
    while True:
        out = {id(node) for statement in gone for node in nodes_of(statement)}
        names = [node for node in nodes_of(function) if isinstance(node, ast.Name) and id(node) not in out]
        used = {node.id for node in names if isinstance(node.ctx, ast.Load)}
        more = [
            each
            for each in assigned
            if each not in gone
            and all(isinstance(part, ast.Name | ast.Tuple | ast.Store) for part in nodes_of(each.targets[0]))
            and not used & set(names_bound(each))
        ]
        if not more:
            return gone
        gone = [*gone, *more]


def without_checks(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """The checks of options, and what only they use; methods that do nothing else."""
    for function in nodes_of(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        checks = [
            node
            for node in nodes_of(function)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
            and getattr(node.value.func, "attr", "").startswith("require")
        ]  # fmt: skip
        gone = unused_in(function, checks)
        body = function.body[1:] if ast.get_docstring(function) else function.body
        if checks and all(each in gone for each in body):
            yield function, ""
        else:
            yield from ((each, "") for each in gone)


def without_figures(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """The figures that a plain copy leaves out, and what only they use."""
    for function in nodes_of(tree):
        if isinstance(function, ast.FunctionDef):
            gone = [
                node
                for node in function.body
                if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
                and getattr(node.value.func, "attr", "") == "save_figure"
                and getattr(node.value.args[0], "value", "") in FIGURES_LEFT_OUT
            ]  # fmt: skip
            yield from ((each, "") for each in (unused_in(function, gone, missed=False) if gone else ()))


def is_layer(node: ast.ClassDef) -> bool:
    """Whether a class is a layer of its own, not one of Keras's that it extends."""
    return [ast.unparse(base) for base in node.bases] == ["layers.Layer"]


def configs_of_arguments(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """Methods `get_config` of layers that give the arguments of these, which Keras notes by itself."""
    for node in tree.body:
        if not isinstance(node, ast.ClassDef) or not is_layer(node):
            continue
        methods = {each.name: each for each in node.body if isinstance(each, ast.FunctionDef)}
        if "get_config" in methods and "__init__" in methods:
            taken = {each.arg for each in methods["__init__"].args.args} - {"self"}
            dicts = [each for each in nodes_of(methods["get_config"]) if isinstance(each, ast.Dict)]
            noted = {key.value for each in dicts for key in each.keys}
            if noted == taken or "(self.options)" in ast.unparse(methods["get_config"]):
                yield methods["get_config"], ""


def returned_at_once(text: str, tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """Functions that return what they named in the line before, without the name."""
    for function in nodes_of(tree):
        match getattr(function, "body", None):
            case [*_, ast.Assign(targets=[ast.Name(id=name)]) as named, ast.Return(value=ast.Name(id=other)) as last]:
                if name == other:
                    yield named, f"return {ast.get_source_segment(text, named.value)}"
                    yield last, ""


def parameters(definition: ast.stmt) -> set[str] | None:
    """The arguments that a function or the class takes; None where it takes any."""
    if isinstance(definition, ast.ClassDef):
        made = [each for each in definition.body if getattr(each, "name", "") == "__init__"]
        definition = made[0] if made else None
    if not isinstance(definition, ast.FunctionDef) or definition.args.kwarg:
        return None
    return {each.arg for each in (*definition.args.args, *definition.args.kwonlyargs)}


def fewer_arguments(tree: ast.Module, counterpart: Callable[[str], ast.Module | None]) -> Iterator[tuple[Any, str]]:
    """The arguments by name that a function or class no longer takes.

    Args:
        tree: of a file.
        counterpart: gives the syntax tree of what a plain copy takes in place of a module, if anything.
    """
    taken: dict[str, set[str] | None] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (found := counterpart(node.module or "")):
            names = {alias.name for alias in node.names}
            for each in found.body:
                if getattr(each, "name", "") in names:
                    taken[each.name] = parameters(each)
                if getattr(each, "name", "") == "Run":
                    taken |= {
                        f"run.{method.name}": parameters(method) for method in each.body if hasattr(method, "name")
                    }
    for node in nodes_of(tree):
        known = taken.get(ast.unparse(node.func)) if isinstance(node, ast.Call) else None
        for keyword in node.keywords if known is not None else ():
            if keyword.arg and keyword.arg not in known:
                given = sorted([*node.args, *node.keywords], key=lambda each: (each.lineno, each.col_offset))
                place = given.index(keyword)
                before, after = given[:place], given[place + 1 :]
                line, column = (before or [node.func])[-1].end_lineno, (before or [node.func])[-1].end_col_offset
                end = (keyword.end_lineno, keyword.end_col_offset)
                if not before and after:  # up to the next
                    end = (after[0].lineno, after[0].col_offset)
                yield (
                    SimpleNamespace(
                        lineno=line, col_offset=column + (not before), end_lineno=end[0], end_col_offset=end[1]
                    ),
                    " ",
                )


class Uses(NamedTuple):
    """The names of attributes that some code looks up."""

    read: frozenset[str]
    called: frozenset[str]
    """Those that it calls, looks up in its own object, or hands on."""
    loaded: frozenset[str] = frozenset()
    """Those that it does not only set."""


def uses_in(sources: list[str]) -> Uses:
    """What some code looks up."""
    found = [uses_of(source) for source in sources]
    return Uses(*(frozenset().union(*each) for each in zip(*found, strict=True)))


@functools.lru_cache(4096)
def uses_of(source: str) -> Uses:
    """What a definition looks up."""
    nodes = nodes_of(parsed(source))
    calls = [node.func for node in nodes if isinstance(node, ast.Call)]
    read = [node for node in nodes if isinstance(node, ast.Attribute)]
    own = [node for node in read if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")]
    handed_on = [each for node in nodes if isinstance(node, ast.Call) for each in node.args]
    handed_on = [each for each in handed_on if root_of(each) not in ("config", "data", "run", "self")]
    called = [node for node in (*calls, *own, *handed_on) if isinstance(node, ast.Attribute)]
    called = [node for node in called if root_of(node) not in PACKAGES]
    loaded = [node for node in read if isinstance(node.ctx, ast.Load)]
    of_run = {f"run.{node.attr}" for node in called if getattr(node.value, "attr", root_of(node)) in ("run", "self")}
    names = [frozenset(node.attr for node in each) for each in (read, called, loaded)]
    return Uses(names[0], names[1] | of_run, names[2])


def root_of(node: ast.expr) -> str:
    """The name that an attribute of an attribute begins with."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return getattr(node, "id", "")


def unused_members(tree: ast.Module, uses: Uses) -> Iterator[tuple[ast.AST, str]]:
    """Methods that nothing calls, and class variables that nothing reads."""
    for node in nodes_of(tree):
        for member in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(member, ast.FunctionDef):
                is_property = any(ast.unparse(each) == "property" for each in member.decorator_list)
                name, used = member.name, uses.read if is_property else uses.called
            elif isinstance(member, ast.AnnAssign) and "ClassVar" in ast.unparse(member.annotation):
                name, used = ast.unparse(member.target), uses.read
            else:
                continue
            of_run = node.name == "Run" and isinstance(member, ast.FunctionDef) and not is_property
            known = name.startswith("__") or name in HOOKS or name == "saves_defaults"
            if not known and (f"run.{name}" if of_run else name) not in used:
                yield member, ""
                after = node.body[node.body.index(member) + 1 :]
                if isinstance(member, ast.AnnAssign) and after and isinstance(after[0], ast.Expr):
                    yield after[0], ""


def unused_dictionaries(tree: ast.Module, uses: Uses) -> Iterator[tuple[ast.AST, str]]:
    """Attributes that hold a dictionary and are only set."""
    for node in nodes_of(tree):
        match node:
            case ast.Assign(
                targets=[ast.Attribute(value=ast.Name(id="self"), attr=name)],
                value=ast.Dict() | ast.BinOp(ast.Dict()),
            ) if name not in uses.loaded:
                yield node, ""


def annotations(tree: ast.Module) -> Iterator[ast.expr]:
    """The types that arguments and results are said to have."""
    for node in nodes_of(tree):
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            yield from filter(None, [node.returns, *(each.annotation for each in arguments)])


def fewer_types(text: str, tree: ast.Module, unreached: frozenset[str]) -> Iterator[tuple[ast.AST, str]]:
    """Unions of types without those that are nowhere used."""
    for annotation in annotations(tree):
        if isinstance(annotation, ast.BinOp):
            left, right = annotation.left, annotation.right
            for unused, other in ((left, right), (right, left)):
                if isinstance(unused, ast.Name) and unused.id in unreached:
                    yield annotation, ast.get_source_segment(text, other)


@functools.cache
def plain_text(text: str, backends: tuple[str, ...]) -> str:
    """A file as a plain copy takes it, whatever else is in the copy."""
    original = text
    for pattern, new in IDIOMS:
        text = re.sub(pattern, new, text)
    text = edited(text, bundled_presets)
    text = edited(text, lambda tree: docstrings(text, tree))
    text = edited(text, lambda tree: other_backends(text, tree, backends))
    text = edited(text, lambda tree: unwrapped(text, tree))
    text = edited(text, lambda tree: fewer_arguments(tree, counterpart_of))
    text = edited(text, without_checks)
    text = edited(text, without_figures)
    text = edited(text, lambda tree: returned_at_once(text, tree))
    text = edited(text, configs_of_arguments)
    if "NewType(" not in text and "PrimitiveConstructorSpec" not in text:
        typed = edited(text, lambda tree: plain_types(text, tree))
        needed = [line for sign, line in IMPORTS if sign in typed and sign not in original and line not in text]
        text = "\n".join([typed, *needed])
    return re.sub(r"\n *(\w+) = \1(?=\n)", "", text)


@functools.lru_cache(1024)
def names_in(text: str) -> frozenset[str]:
    """The names and attributes in a text, and the functions that it defines."""
    nodes = nodes_of(parsed(text))
    functions = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    functions |= {f"run.{name}" for name in functions}
    return frozenset(functions | attributes | {node.id for node in nodes if isinstance(node, ast.Name)})


def used_text(text: str, uses: Uses, unreached: set[str]) -> str:
    """A plain text without what nothing in the copy uses.

    Args:
        text: of a file, as `plain_text` gives it.
        uses: what the copy looks up.
        unreached: definitions that nothing but annotations name.
    """
    names = names_in(text)  # of all that is used, what concerns this text: much else may change meanwhile
    uses = Uses(*(each & names for each in uses))
    return text_of_uses(text, uses, names & unreached)


@functools.lru_cache(1024)
def text_of_uses(text: str, uses: Uses, unreached: frozenset[str]) -> str:
    """See `used_text`."""
    text = edited(text, lambda tree: unused_members(tree, uses))
    text = edited(text, lambda tree: unused_dictionaries(tree, uses))
    return edited(text, lambda tree: fewer_types(text, tree, unreached))
