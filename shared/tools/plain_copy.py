"""The plain copy of a recipe: one file in plain Keras that reads downwards, the recipe first."""

import ast
import functools
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from shared.tools.collecting import PLAIN, Collection, names_bound, names_used
from shared.tools.project import PROJECT

SECTIONS = {
    "The layers and losses": ("layers", "losses", "likelihood", "latents", "prior"),
    "Metrics and figures": ("metrics", "evaluation", "report", "evaluation_networks", "plots", "grad_cam"),
    "Using the model": (
        "prediction", "predictors", "decoding", "sampling", "samplers", "beam_search", "language_model", "causal_model",
        "chat_tuning", "samples", "responder", "translator", "gan_sampling", "instances", "coding",
    ),
    "The data": (
        "data", "batches", "gan_batches", "augment", "pairs", "subwords", "tokens", "dialogue", "pixels",
    ),
    "The loop": ("training", "backends", "errors", "files"),
}  # fmt: skip
"""The parts of a plain copy below the recipe: what is in files or else folders of these names. All else is in the
first."""


HOOKS = {
    "build", "call", "compute_output_shape", "compute_output_spec", "get_config", "from_config", "update_state",
    "result", "reset_state", "num_batches", "on_epoch_begin", "on_epoch_end", "on_train_begin", "on_train_end",
    "on_train_batch_begin", "on_train_batch_end", "on_test_begin", "on_test_end", "get_current_value", "add_update",
    "find_class", "persistent_load", "computeIoU",
}  # fmt: skip
"""Methods that Keras, Python and other packages call."""


DONE_BY_KERAS = ("used_rows",)
"""Functions that only make their argument quicker, in whose place a plain copy has the argument."""


IDIOMS = (
    (r'f"\{data\.name\} \{data\.fingerprint\}"', "data.name"),
    (r"\n *facts = \(weights, .*\n *name = .*(?=\n)", ""),
    (r"cached_arrays\(.*, (\w+)\)", r"\1()"),
    (r"\n *super\(\).__post_init__\(\)(?=\n)", ""),
    (r";? see `\w+` and `shared\.[\w.]*`", ""),
    (r" See `shared\.[\w.]*`( for the arguments)?\.", ""),
    (r"; see `shared\.[\w.]*`", ""),
    (r"run\.recorders\[(.*?)\]\.history", r"run.histories[\1]"),
    (r"; a UsageError if the options do not fit them", ""),
    (r"\n *check_initial_classes\(.*\)(?=\n)", ""),
)
"""What stands otherwise in a plain copy, as regular expressions: nothing is cached or checked to be the same there."""


TYPES = {
    "UsageError": "SystemExit", "Count": "int", "Limit": "int | None", "Whole": "int", "Number": "float",
    "Positive": "float", "NonNegative": "float", "Fraction": "float", "Rate": "float", "Part": "float",
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
)
"""What a file then needs where it holds this."""


class Piece(NamedTuple):
    """A definition, or another statement of a recipe."""

    file: str
    name: str
    source: str


def edited(text: str, find: Callable[[ast.Module], Iterator[tuple[ast.AST, str]]]) -> str:
    """A text with other text in place of some nodes of its syntax tree, which do not overlap.

    Args:
        text: Python.
        find: gives the nodes, and what shall stand there; "" to leave a statement out with its decorators, and the
            comments and docstring of a field.
    """
    found = list(find(ast.parse(text)))
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


def without_sections(docstring: str, indent: int) -> str:
    """A docstring as it stands in the source, without what it says of arguments, results and errors one by one."""
    kept, skipped = [], None
    for line in docstring.split("\n"):
        depth = len(line) - len(line.lstrip())
        if skipped is None and re.fullmatch(r" +(Args|Attributes|Raises|Returns):", line):
            skipped = depth
        elif (
            skipped is not None
            and line.strip()
            and depth <= skipped
            and not re.fullmatch(r" +(Args|Attributes|Raises|Returns):", line)
        ):
            skipped = None
        if skipped is None:
            kept.append(line)
    text = re.sub(r"\n\s*\n(\s*\"\"\")$", r"\n\1", re.sub(r"\n(\s*\n){2,}", "\n\n", "\n".join(kept)))
    summary = re.fullmatch(r'(.*)\n\s*"""', text)
    return summary[1] + '"""' if summary and indent + len(summary[1]) < 118 else text


def docstrings(text: str, tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """The docstrings, and the same without their sections."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            yield node.body[0], without_sections(ast.get_source_segment(text, node.body[0]), node.body[0].col_offset)


def other_backends(text: str, tree: ast.Module, backends: tuple[str, ...]) -> Iterator[tuple[ast.AST, str]]:
    """The cases of other backends; where one case is left, it takes the place of the `match`."""
    for node in ast.walk(tree):
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
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in DONE_BY_KERAS:
            yield node, ast.get_source_segment(text, node.args[0])


def plain_types(text: str, tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """Types of Python in place of this project's."""
    made = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"ranged", *NEW_TYPES}:
            made.update(ast.walk(node))
            if node.func.id in NEW_TYPES:
                yield node, ast.get_source_segment(text, node.args[0])
            else:
                optional = any(each.arg == "optional" for each in node.keywords)
                yield node, ast.unparse(node.args[0]) + " | None" * optional
        elif isinstance(node, ast.Name) and node not in made and node.id in TYPES | NEW_TYPES:
            yield node, (TYPES | NEW_TYPES)[node.id]


def bundled_presets(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """The preset "test", on data that are bundled with the project."""
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "presets":
            for key, value in zip(node.value.keys, node.value.values, strict=True):
                if key.value == "test":
                    key.end_lineno = value.end_lineno
                    yield key, ""


class Uses(NamedTuple):
    """The names of attributes that some code looks up."""

    read: set[str]
    called: set[str]
    """Those that it calls, or looks up in its own object."""


def uses_in(sources: list[str]) -> Uses:
    """What some code looks up."""
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    calls = [node.func for node in nodes if isinstance(node, ast.Call)]
    read = [node for node in nodes if isinstance(node, ast.Attribute)]
    own = [node for node in read if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")]
    called = [node for node in (*calls, *own) if isinstance(node, ast.Attribute)]
    return Uses({node.attr for node in read}, {node.attr for node in called})


def unused_members(tree: ast.Module, uses: Uses) -> Iterator[tuple[ast.AST, str]]:
    """Methods that nothing calls, and class variables that nothing reads."""
    for node in ast.walk(tree):
        for member in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(member, ast.FunctionDef):
                is_property = any(ast.unparse(each) == "property" for each in member.decorator_list)
                name, used = member.name, uses.read if is_property else uses.called
            elif isinstance(member, ast.AnnAssign) and "ClassVar" in ast.unparse(member.annotation):
                name, used = ast.unparse(member.target), uses.read
            else:
                continue
            if not name.startswith("__") and name not in used and name not in HOOKS:
                yield member, ""
                after = node.body[node.body.index(member) + 1 :]
                if isinstance(member, ast.AnnAssign) and after and isinstance(after[0], ast.Expr):
                    yield after[0], ""


def annotations(tree: ast.Module) -> Iterator[ast.expr]:
    """The types that arguments and results are said to have."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            yield from filter(None, [node.returns, *(each.annotation for each in arguments)])


def fewer_types(text: str, tree: ast.Module, unreached: set[str]) -> Iterator[tuple[ast.AST, str]]:
    """Unions of types without those that are nowhere used."""
    for annotation in annotations(tree):
        if isinstance(annotation, ast.BinOp):
            left, right = annotation.left, annotation.right
            for unused, other in ((left, right), (right, left)):
                if isinstance(unused, ast.Name) and unused.id in unreached:
                    yield annotation, ast.get_source_segment(text, other)


def unreached_names(collection: Collection) -> set[str]:
    """The definitions that nothing but annotations name."""
    tree_of = {bound: source for _, _, source in collection.blocks() for bound in bound_by(source)}
    found: set[str] = set()

    def reach(source: str) -> None:
        tree = ast.parse(source)
        said = {id(node) for annotation in annotations(tree) for node in ast.walk(annotation)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and id(node) not in said and node.id in tree_of and node.id not in found:
                found.add(node.id)
                reach(tree_of[node.id])

    for statement in collection.recipe.statements:
        reach(statement)
    return tree_of.keys() - found


@functools.cache
def plain_text(text: str, backends: tuple[str, ...]) -> str:
    """A file as a plain copy takes it, whatever else is in the copy."""
    for pattern, new in IDIOMS:
        text = re.sub(pattern, new, text)
    text = edited(text, bundled_presets)
    text = edited(text, lambda tree: docstrings(text, tree))
    text = edited(text, lambda tree: other_backends(text, tree, backends))
    text = edited(text, lambda tree: unwrapped(text, tree))
    if "NewType(" not in text and "PrimitiveConstructorSpec" not in text:
        typed = edited(text, lambda tree: plain_types(text, tree))
        needed = [line for sign, line in IMPORTS if sign in typed and sign not in text and line not in text]
        text = "\n".join([typed, *needed])
    return re.sub(r"\n *(\w+) = \1(?=\n)", "", text)


def called_names(source: str) -> list[str]:
    """The names of functions that some code calls, once for each call."""
    calls = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [node.id for node in calls if isinstance(node, ast.Name)]


def arguments_given(sources: list[str]) -> dict[str, set[str] | None]:
    """By function, or method of the run, the names and numbers of the arguments that calls give; None: any may be."""
    found: dict[str, set[str] | None] = {}
    for node in (node for source in sources for node in ast.walk(ast.parse(source))):
        match node:
            case ast.Call(func=ast.Name(id=name)) | ast.Call(func=ast.Attribute(value=ast.Name(id="run"), attr=name)):
                names = {keyword.arg for keyword in node.keywords} | set(range(len(node.args)))
                if None in names or any(isinstance(each, ast.Starred) for each in node.args):
                    found[name] = None
                elif found.setdefault(name, set()) is not None:
                    found[name] |= names
    return found


class Settled(ast.NodeTransformer):
    """Puts constants in place of names, and decides what depends on these alone."""

    def __init__(self, constants: dict[str, ast.Constant]):
        self.constants = constants

    def visit_Name(self, node):
        return self.constants.get(node.id, node)

    def visit_IfExp(self, node):
        self.generic_visit(node)
        return (node.body if node.test.value else node.orelse) if isinstance(node.test, ast.Constant) else node

    def visit_UnaryOp(self, node):
        self.generic_visit(node)
        decided = isinstance(node.op, ast.Not) and isinstance(node.operand, ast.Constant)
        return ast.Constant(not node.operand.value) if decided else node

    def visit_BoolOp(self, node):
        self.generic_visit(node)
        decided = isinstance(node.values[0], ast.Constant)
        if decided and bool(node.values[0].value) == isinstance(node.op, ast.And):
            return node.values[1] if len(node.values) == 2 else ast.BoolOp(node.op, node.values[1:])
        last = node.values[-1]
        if isinstance(last, ast.Constant) and last.value is True and isinstance(node.op, ast.And):
            return node.values[0] if len(node.values) == 2 else ast.BoolOp(node.op, node.values[:-1])
        return node.values[0] if decided else node

    def visit_JoinedStr(self, node):
        self.generic_visit(node)
        settled = [each.value if isinstance(each, ast.FormattedValue) and isinstance(each.value, ast.Constant) else each
                   for each in node.values]  # fmt: skip
        if not all(isinstance(each, ast.Constant) for each in settled):
            return ast.JoinedStr(settled)
        return ast.Constant("".join(str(each.value) for each in settled))


def settled_arguments(text: str, tree: ast.Module, given: dict[str, set[str] | None]) -> Iterator[tuple[ast.AST, str]]:
    """Functions, and methods of the run, without the arguments that no call gives: their defaults stand for them."""
    for function, offset in [
        *((node, 0) for node in tree.body),
        *((member, 1) for node in tree.body if getattr(node, "name", "") == "Run" for member in node.body),
    ]:
        names = given.get(getattr(function, "name", ""))
        if not isinstance(function, ast.FunctionDef) or names is None:
            continue
        arguments = function.args.args
        defaults = dict(zip([each.arg for each in arguments[::-1]], function.args.defaults[::-1], strict=False))
        changed = {
            each.id for each in ast.walk(function) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
        }
        heads = [head for node in ast.walk(function) for head in heads_of(node)]
        changed |= {each.id for head in heads for each in ast.walk(head) if isinstance(each, ast.Name)}
        left_out = {
            each.arg: defaults[each.arg]
            for place, each in enumerate(arguments)
            if isinstance(defaults.get(each.arg), ast.Constant)
            and each.arg not in changed
            and not {each.arg, place - offset} & names
        }
        if left_out:
            yield function, without_arguments(text, function, left_out)


def heads_of(node: ast.AST) -> list[ast.AST]:
    """What a statement that others stand in looks up itself."""
    match node:
        case ast.For():
            return [node.iter]
        case ast.While():
            return [node.test]
        case ast.With():
            return node.items
    return []


def without_arguments(text: str, function: ast.FunctionDef, constants: dict[str, ast.Constant]) -> str:
    """The source of a function, constants in place of some of its arguments."""
    indent = " " * function.col_offset
    source = indent + ast.get_source_segment(text, function)
    source = edited(textwrap.dedent(source), lambda tree: settled_statements(tree.body[0], constants))
    (function,) = ast.parse(source).body
    arguments = function.args
    defaults = dict(zip([each.arg for each in arguments.args[::-1]], arguments.defaults[::-1], strict=False))
    arguments.args = [each for each in arguments.args if each.arg not in constants]
    arguments.defaults = [defaults[each.arg] for each in arguments.args if each.arg in defaults]
    returns = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    body = source.split("\n")[function.body[0].lineno - 1 :]
    lines = [f"def {function.name}({ast.unparse(arguments)}){returns}:", *body]
    return textwrap.indent("\n".join(lines), indent).removeprefix(indent)


def settled_statements(function: ast.FunctionDef, constants: dict[str, ast.Constant]) -> Iterator[tuple[ast.AST, str]]:
    """The statements of a function that name some constants, with what these decide in their place."""

    def visit(statements: list[ast.stmt]) -> Iterator[tuple[ast.AST, str]]:
        for node in statements:
            names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
            if not names & constants.keys():
                continue
            if isinstance(node, ast.If):
                test = Settled(constants).visit(node.test)
                if isinstance(test, ast.Constant):
                    chosen = node.body if test.value else node.orelse
                    yield node, "\n".join(ast.unparse(each) for each in chosen)
                    continue
            if hasattr(node, "body") and not isinstance(node, ast.If):
                yield from visit(node.body)
            else:
                new = Settled(constants).visit(node)
                yield node, textwrap.indent(ast.unparse(new), " " * node.col_offset).lstrip()

    yield from visit(function.body)


def used_text(text: str, uses: Uses, unreached: set[str], given: dict[str, set[str] | None]) -> str:
    """A plain text without what nothing in the copy uses."""
    text = edited(text, lambda tree: unused_members(tree, uses))
    text = edited(text, lambda tree: settled_arguments(text, tree, given))
    return edited(text, lambda tree: fewer_types(text, tree, unreached))


def plain_collection(recipe: Path, backends: tuple[str, ...]) -> Collection:
    """What a plain copy consists of."""
    uses, unreached, given = Uses(set(), set()), set(), {}

    def edit(text: str) -> str:
        return used_text(plain_text(text, backends), uses, unreached, given)

    def collect() -> tuple[Collection, Uses]:
        collection = Collection(recipe, plain=True, edit=edit)
        return collection, uses_in([source for _, _, source in collection.blocks()])

    while True:  # what is called may call more
        collection, found = collect()
        if found.read <= uses.read and found.called <= uses.called:
            break
        uses = Uses(uses.read | found.read, uses.called | found.called)
    while unused := unreached_names(collection) - unreached:  # without which less is called
        unreached |= unused
        collection, uses = collect()
    sources = [source for _, _, source in collection.blocks()]
    mentioned = [node.id for source in sources for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)]
    given = arguments_given(sources)
    called = Counter(each for source in sources for each in called_names(source))
    given = {name: names for name, names in given.items() if mentioned.count(name) == called[name]}
    collection, uses = collect()
    return collect()[0]


def needed_at_import(source: str) -> set[str]:
    """The names that a statement looks up when it is run, not later when what it defines is called."""

    def expressions(node: ast.stmt) -> Iterator[ast.AST]:
        match node:
            case ast.FunctionDef():
                yield from (*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults))
            case ast.ClassDef():
                yield from (*node.decorator_list, *node.bases, *(each.value for each in node.keywords))
                for member in node.body:
                    yield from expressions(member)
            case ast.AnnAssign():
                yield from filter(None, [node.value])
            case _:
                yield node

    found = {each for statement in ast.parse(source).body for each in expressions(statement)}
    return {name.id for each in found for name in ast.walk(each) if isinstance(name, ast.Name)}


def section_of(file: str) -> str:
    """The part of a plain copy that a file belongs to."""
    stem, *folders = Path(file.replace(PLAIN, "shared", 1)).with_suffix("").parts[::-1]
    for name in (stem, *folders):
        for title, names in SECTIONS.items():
            if name in names:
                return title
    return next(iter(SECTIONS))


class Member(NamedTuple):
    """A field or a method of a class, with the string after it that says what it means."""

    source: str
    meaning: str
    is_method: bool


def members_of(source: str) -> dict[str, Member]:
    """The fields and methods of a class by name."""
    (tree,), lines, found, name = ast.parse(source).body, source.split("\n"), {}, ""
    for node in tree.body:
        first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])
        text = "\n".join(lines[first - 1 : node.end_lineno])
        if bound := names_bound(node):
            (name,) = bound
            found[name] = Member(text, "", isinstance(node, ast.FunctionDef))
        elif name:
            found[name] = found[name]._replace(meaning="\n" + text)
    return found


def with_bases(source: str, bases: list[str]) -> str:
    """A dataclass with the fields and methods of its bases in it."""
    merged: dict[str, Member] = {}
    for each in (*bases, source):
        for name, member in members_of(each).items():
            merged[name] = member._replace(meaning=member.meaning or merged.get(name, member).meaning)
    (tree,) = ast.parse(source).body
    head = source.split("\n")[: tree.body[0].end_lineno]
    head = [re.sub(r"\(\w+\):$", ":", line) if line.startswith("class ") else line for line in head]
    fields = [member.source + member.meaning for member in merged.values() if not member.is_method]
    methods = [member.source for member in merged.values() if member.is_method]
    return "\n".join([*head, "", fields[0], "", *fields[1:], "", "\n\n".join(methods)])


def base_options(pieces: list[Piece], config: Piece) -> list[Piece]:
    """The classes that the options of a recipe inherit from, the first first."""
    (tree,) = ast.parse(config.source).body
    found = [piece for base in tree.bases for piece in pieces if piece.name == ast.unparse(base)]
    return [each for piece in found for each in (*base_options(pieces, piece), piece)]


def with_one_config(pieces: list[Piece], recipe: list[Piece]) -> tuple[list[Piece], list[Piece]]:
    """The pieces of `shared` and of the recipe, the options all in one class."""
    config = next(piece for piece in recipe if piece.name == "Config")
    bases = base_options(pieces, config)
    whole = config._replace(source=with_bases(config.source, [piece.source for piece in bases]))
    names = re.compile(rf"\b({'|'.join(piece.name for piece in bases)})\b(?!\()")
    pieces = [piece._replace(source=names.sub("Config", piece.source)) for piece in pieces if piece not in bases]
    return pieces, [whole if piece is config else piece for piece in recipe]


def ordered_pieces(collection: Collection) -> tuple[list[Piece], dict[str, list[Piece]], list[Piece]]:
    """The recipe, after what it needs before it; the other pieces by section; and what ends the file."""
    pieces = [Piece(*block) for block in collection.blocks() if block[1] != "recipe"]
    file = collection.recipe.path.relative_to(PROJECT).as_posix()
    recipe = [Piece(file, (bound_by(source) or ["launch"])[0], source) for source in collection.recipe.statements]
    pieces, recipe = with_one_config(pieces, recipe)
    homes = {bound: piece for piece in pieces for bound in bound_by(piece.source)}
    pieces = list(dict.fromkeys(homes[piece.name] for piece in pieces))
    homes |= {bound: piece for piece in recipe for bound in bound_by(piece.source)}
    reached: dict[Piece, None] = {}

    def reach(piece: Piece) -> None:
        if piece not in reached:
            reached[piece] = None
            for name in names_in_order(piece.source):
                if name in homes:
                    reach(homes[name])

    for piece in recipe:
        reach(piece)
    ranks: dict[str, int] = {}
    for number, piece in enumerate(reached):
        ranks.setdefault(piece.file, number)
    places = {piece: place for place, piece in enumerate(pieces)}
    done: dict[Piece, None] = {}

    def emit(piece: Piece, into: list[Piece]) -> None:
        if piece in done:
            return
        for name in names_in_order(piece.source):
            if name in needed_at_import(piece.source) and name in homes:
                emit(homes[name], into)
        done[piece] = None
        into.append(piece)

    top: list[Piece] = []
    late = [piece for piece in recipe if is_constant(piece.source) and needed_at_import(piece.source) & {
        bound for each in pieces for bound in bound_by(each.source)}]  # fmt: skip
    for piece in recipe:
        if piece not in late and piece.name != "launch":
            emit(piece, top)
    sections: dict[str, list[Piece]] = {title: [] for title in SECTIONS}
    for title, into in sections.items():
        members = [piece for piece in pieces if section_of(piece.file) == title]
        for piece in sorted(members, key=lambda each: (ranks[each.file], places[each])):
            emit(piece, into)
    for piece in late:
        needed = homes[next(name for name in names_in_order(piece.source) if name in homes and homes[name] in pieces)]
        emit(piece, next(into for into in sections.values() if needed in into))
    return top, sections, [piece for piece in recipe if piece.name == "launch"]


def bound_by(source: str) -> list[str]:
    """The names that a statement binds."""
    return [name for node in ast.parse(source).body for name in names_bound(node)]


def is_constant(source: str) -> bool:
    """Whether a statement is an assignment."""
    return isinstance(ast.parse(source).body[0], ast.Assign | ast.AnnAssign)


def names_in_order(source: str) -> list[str]:
    """The names that a statement uses, as they come."""
    used = names_used(source)
    names = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)]
    names.sort(key=lambda node: (node.lineno, node.col_offset))
    return list(dict.fromkeys(node.id for node in names if node.id in used))


def plain_docstring(docstring: str, name: str, backend: str) -> str:
    """The docstring of a recipe without what a copy does not have: predictions by command, and recorded runs."""
    text = docstring.replace(f"recipes/{name}.py", f"{name}.py")
    text = text.replace("KERAS_BACKEND=jax", f"KERAS_BACKEND={backend}")
    text = re.sub(r"\n.*(recipes predict|--resume).*", "", text)
    text = re.sub(r", see docs/\S+", "", text).strip('"').strip()
    paragraphs = []
    for paragraph in text.split("\n\n"):
        if "results/" in paragraph:
            sentences = re.split(r'(?<=[.!?"]) (?=[A-Z])', " ".join(paragraph.split()))
            paragraph = textwrap.fill(" ".join(each for each in sentences if "results/" not in each), 120)
        paragraphs.append(paragraph)
    return '"""' + "\n\n".join(filter(None, paragraphs)) + '\n"""'


def depth_of(line: str) -> int:
    """How far a line is indented."""
    return len(line) - len(line.lstrip())


def filled(text: str) -> str:
    """A formatted text with what stands in brackets, an entry a line, put together in lines as long as they may be."""
    found: list[str] = []
    for line in text.split("\n"):
        found.append(line)
        if not re.match(r" *[)\]}]", line):
            continue
        depth = depth_of(line)
        start = next(i for i in range(len(found) - 2, -1, -1) if found[i] and depth_of(found[i]) <= depth)
        entries, entry = found[start + 1 : -1], re.compile(rf" {{{depth + 4}}}(?! )((?!  # ).)*,")
        if re.search(r"[(\[{]$", found[start]) and entries and all(map(entry.fullmatch, entries)):
            indent = " " * (depth + 4)
            words = " ".join(each.strip().replace(" ", "\0") for each in entries)
            together = textwrap.fill(
                words, 120, initial_indent=indent, subsequent_indent=indent, break_long_words=False,
                break_on_hyphens=False,
            )  # fmt: skip
            found[start + 1 : -1] = together.replace("\0", " ").split("\n")
    return "\n".join(found)
