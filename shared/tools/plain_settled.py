"""The text of a plain copy with constants in place of the arguments and attributes that are settled."""

import ast
import copy
import functools
import textwrap
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

from shared.tools.collecting import nodes_of, parsed
from shared.tools.plain_constants import Settlement, expression, is_run, items_of
from shared.tools.plain_text import edited

Edits = Iterator[tuple[Any, str]]
"""Nodes, or places in a text, and what shall stand there; see `shared.tools.plain_text.edited`."""


Dropped = tuple[tuple[str, int, str], ...]
"""Settled arguments: name, place, and the constant."""


class Settled(ast.NodeTransformer):
    """Puts constants in place of names and attributes, and decides what depends on these alone.

    Args:
        settlement: of the copy.
        names: constants by name.
        packages: names whose attributes are no objects of the copy.
        base: the callees of `super().__init__` here.
    """

    def __init__(self, settlement: Settlement, names: dict[str, ast.expr], packages: set[str], base: str):
        self.names, self.packages, self.base = names, packages, base
        self.arguments = dict(settlement.arguments)
        self.attributes = dict(settlement.attributes)
        self.constructors = dict(settlement.constructors)
        self.dropping = False
        """Whether calls lose the arguments that are settled."""
        self.entries: dict[str, set[str]] = {}
        """The entries that local dictionaries of arguments lose."""

    def visit_Name(self, node):
        return self.names.get(node.id, node) if isinstance(node.ctx, ast.Load) else node

    def visit_Attribute(self, node):
        own = not (isinstance(node.value, ast.Name) and node.value.id in self.packages)
        if isinstance(node.ctx, ast.Load) and node.attr in self.attributes and own:
            return expression(self.attributes[node.attr])
        return self.generic_visit(node)

    def visit_Call(self, node):
        dropped = self.arguments_dropped(node) if self.dropping else ()
        names, places = {name for name, _, _ in dropped}, {place for _, place, _ in dropped}
        if not any(isinstance(each, ast.Starred) for each in node.args):
            node.args = [each for place, each in enumerate(node.args) if place not in places]
        node.keywords = [each for each in node.keywords if each.arg not in names]
        for keyword in node.keywords:
            if not keyword.arg and isinstance(keyword.value, ast.Dict):
                without_entries(keyword.value, names)
        if isinstance(node.func, ast.Attribute):  # what is called is a method, not an attribute
            node.func.value = self.visit(node.func.value)
        else:
            node.func = self.visit(node.func)
        node.args, node.keywords = ([self.visit(each) for each in part] for part in (node.args, node.keywords))
        empty = isinstance(node.func, ast.Name) and node.func.id == "list" and ast.unparse(node) == "list(())"
        return ast.List([], ast.Load()) if empty else node

    def arguments_dropped(self, node: ast.Call) -> Dropped:
        """The settled arguments of what a call calls."""
        match node.func:
            case ast.Name(id=name):
                return self.of_chain(self.constructors.get(name, name))
            case ast.Attribute(attr="__init__"):
                return self.of_chain(self.base)
            case ast.Attribute(attr=alias) if f".{alias}" in self.constructors:
                return self.of_chain(self.constructors[f".{alias}"])
            case ast.Attribute(value=value, attr=method):
                methods = [each for each in self.arguments if each.endswith(f".{method}")]
                return next((self.arguments[each] for each in methods if is_run(value) == each.startswith("Run.")), ())
        return ()

    def of_chain(self, callees: str) -> Dropped:
        """The settled arguments of callees that hand on what they do not know: those after the first by name alone."""
        first, *others = callees.split(",")
        handed_on = [(name, -1, value) for each in others for name, _, value in self.arguments.get(each, ())]
        return (*self.arguments.get(first, ()), *handed_on)

    def dropped_entries(self, function: ast.FunctionDef) -> dict[str, set[str]]:
        """The settled entries of a function's local dictionaries of arguments."""
        found: dict[str, set[str]] = {}
        for node in nodes_of(function):
            for each in node.keywords if isinstance(node, ast.Call) else ():
                if not each.arg and isinstance(each.value, ast.Name):
                    found.setdefault(each.value.id, set()).update(name for name, _, _ in self.arguments_dropped(node))
        return found

    def visit_Assign(self, node):
        self.generic_visit(node)
        if isinstance(node.value, ast.Dict):
            without_entries(node.value, self.entries.get(ast.unparse(node.targets[0]), set()))
        return node

    def visit_IfExp(self, node):
        self.generic_visit(node)
        return (node.body if node.test.value else node.orelse) if isinstance(node.test, ast.Constant) else node

    def visit_UnaryOp(self, node):
        self.generic_visit(node)
        decided = isinstance(node.op, ast.Not) and isinstance(node.operand, ast.Constant)
        return ast.Constant(not node.operand.value) if decided else node

    def visit_Compare(self, node):
        self.generic_visit(node)
        match node:
            case ast.Compare(ast.Constant(left), [operator], [ast.Constant(right)]):
                match operator:
                    case ast.Eq() | ast.Is():
                        return ast.Constant(left == right)
                    case ast.NotEq() | ast.IsNot():
                        return ast.Constant(left != right)
                    case ast.Gt():
                        return ast.Constant(left > right)
                    case ast.Lt():
                        return ast.Constant(left < right)
            case ast.Compare(ast.Name(name), [ast.Is() | ast.IsNot() as operator], [ast.Constant(None)]):
                return ast.Constant(isinstance(operator, ast.IsNot)) if name.isupper() else node
        return node

    def visit_Slice(self, node):
        self.generic_visit(node)
        return ast.Slice(*(None if is_none(each) else each for each in (node.lower, node.upper, node.step)))

    def visit_Subscript(self, node):
        self.generic_visit(node)
        match node:
            case ast.Subscript(value=ast.Dict(), slice=ast.Constant(value=chosen)):
                return dict(items_of(node.value))[chosen]
        return node

    def visit_BoolOp(self, node):
        self.generic_visit(node)
        is_and = isinstance(node.op, ast.And)
        kept: list[ast.expr] = []
        for each in node.values:
            if isinstance(each, ast.Constant) and bool(each.value) != is_and:  # decides, unless one before it does
                kept.append(each)
                break
            if not isinstance(each, ast.Constant) or each is node.values[-1]:
                kept.append(each)
        if len(kept) > 1 and isinstance(kept[-1], ast.Constant) and kept[-1].value is is_and:
            kept.pop()
        return kept[0] if len(kept) == 1 else ast.BoolOp(node.op, kept)

    def visit_JoinedStr(self, node):
        parts = [each for each in node.values if isinstance(each, ast.FormattedValue)]
        for each in parts:
            each.value = self.visit(each.value)
        if not any(isinstance(each.value, ast.Constant) for each in parts):
            return node
        settled = [each.value if isinstance(getattr(each, "value", None), ast.Constant) else each
                   for each in node.values]  # fmt: skip
        if not all(isinstance(each, ast.Constant) for each in settled):
            return ast.JoinedStr(settled)
        return ast.Constant("".join(str(each.value) for each in settled))


def without_entries(node: ast.Dict, names: set[str]) -> None:
    """Takes some entries out of a dictionary."""
    kept = [place for place, (name, _) in enumerate(items_of(node)) if name not in names]
    node.keys, node.values = [node.keys[place] for place in kept], [node.values[place] for place in kept]


def is_none(node: ast.expr | None) -> bool:
    """Whether an expression is None, or there is none."""
    return node is None or (isinstance(node, ast.Constant) and node.value is None)


class Scope(NamedTuple):
    """Where a statement stands."""

    home: str = ""
    """The class."""
    base: str = ""
    """See `Settled`."""
    function: ast.FunctionDef | None = None
    """The outermost."""
    names: tuple[tuple[str, str], ...] = ()
    """Constants by name."""


class SettledText:
    """A file with constants in place of what is settled; `text` is the result."""

    def __init__(self, text: str, settlement: Settlement):
        self.settlement = settlement
        self.arguments, self.attributes = dict(settlement.arguments), dict(settlement.attributes)
        self.constructors = dict(settlement.constructors)
        imports = [node for node in parsed(text).body if isinstance(node, ast.Import | ast.ImportFrom)]
        self.packages = {alias.name for node in imports for alias in node.names}
        self.dropping, self.text, before = False, text, ""
        while self.text != before:
            before = self.text
            self.text = edited(before, lambda tree: self.statements(tree.body, Scope()))
        self.dropping = True  # once: the second argument of a call is the first thereafter
        self.text = edited(self.text, lambda tree: self.statements(tree.body, Scope()))
        self.text = edited(self.text, self.signatures)

    def settled(self, node: ast.AST, scope: Scope) -> ast.AST:
        """A statement or an expression with constants in it."""
        names = {name: expression(value) for name, value in scope.names}
        settled = Settled(self.settlement, names, self.packages, scope.base)
        settled.dropping = self.dropping
        settled.entries = settled.dropped_entries(scope.function) if self.dropping and scope.function else {}
        return settled.visit(copy.deepcopy(node))

    def statements(self, body: list[ast.stmt], scope: Scope) -> Edits:
        """What stands otherwise in some statements."""
        for place, node in enumerate(body):
            match node:
                case ast.FunctionDef():
                    yield from self.function(node, scope)
                case ast.ClassDef():
                    yield from self.members(node)
                case ast.If():
                    yield from self.choice(node, scope)
                    if self.leaves(node, scope):
                        yield from ((each, "") for each in body[place + 1 :])
                        return
                case ast.For() | ast.While() | ast.With() | ast.Try() | ast.Match():
                    for head in heads_of(node):
                        yield from self.changed(head, self.settled(head, scope))
                    for part in (node, *getattr(node, "handlers", ()), *getattr(node, "cases", ())):
                        for name in ("body", "orelse", "finalbody"):
                            yield from self.statements(getattr(part, name, []), scope)
                case (
                    ast.Assign(targets=[ast.Attribute(value=ast.Name(id="self"), attr=name)])
                    | ast.AnnAssign(target=ast.Attribute(value=ast.Name(id="self"), attr=name))
                ) if name in self.attributes:
                    yield from left_out(body, place)
                case _:
                    changed = list(self.changed(node, self.settled(node, scope)))
                    yield from changed
                    if any(isinstance(each, ast.Call | ast.Dict) for each, _ in changed):
                        yield from self.layout_mark(node)

    def chosen(self, node: ast.If, scope: Scope) -> list[ast.stmt] | None:
        """What an `if` stands for; None where it is not decided."""
        test = self.settled(node.test, scope)
        return (node.body if test.value else node.orelse) if isinstance(test, ast.Constant) else None

    def leaves(self, node: ast.If, scope: Scope) -> bool:
        """Whether what stands after an `if` is never reached, as is now decided."""
        return bool(chosen := self.chosen(node, scope)) and isinstance(chosen[-1], ast.Return | ast.Raise)

    def choice(self, node: ast.If, scope: Scope) -> Edits:
        """What stands otherwise in an `if`: where it is decided, what it stands for."""
        chosen = self.chosen(node, scope)
        if chosen is not None:
            lines = self.text.split("\n")
            source = "\n".join(lines[chosen[0].lineno - 1 : chosen[-1].end_lineno]) if chosen else ""
            yield node, textwrap.indent(textwrap.dedent(source), " " * node.col_offset).lstrip()
        else:
            yield from self.changed(node.test, self.settled(node.test, scope))
            for part in (node.body, node.orelse):
                yield from self.statements(part, scope)

    def layout_mark(self, node: ast.stmt) -> Edits:
        """The comment that keeps a statement as it is laid out, which it no longer is."""
        line, mark = self.text.split("\n")[node.end_lineno - 1].encode(), b"  # fmt: skip"
        if line.endswith(mark):
            yield place_between((node.end_lineno, len(line) - len(mark)), (node.end_lineno, len(line))), " "

    def function(self, node: ast.FunctionDef, scope: Scope) -> Edits:
        """What stands otherwise in a function."""
        taken = {each.arg for each in nodes_of(node.args) if isinstance(each, ast.arg)}
        names = {name: value for name, value in scope.names if name not in taken}
        names |= {name: value for name, _, value in self.arguments.get(callee_of(scope.home, node), ())}
        inner = scope._replace(names=tuple(names.items()), function=scope.function or node)
        names |= self.decided(node, inner)
        yield from self.statements(node.body, inner._replace(names=tuple(names.items())))

    def decided(self, function: ast.FunctionDef, scope: Scope) -> dict[str, str]:
        """The variables of a function that hold True, False or None because of what is settled."""
        names = [each for each in nodes_of(function) if isinstance(each, ast.Name)]
        stored = [each.id for each in names if isinstance(each.ctx, ast.Store)]
        found = {}
        for node in function.body:
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value) if stored.count(name) == 1:
                    new = value if isinstance(value, ast.Constant) else self.settled(value, scope)
                    if new is not value and isinstance(new, ast.Constant) and isinstance(new.value, bool | None):
                        found[name] = ast.unparse(new)
        return found

    def changed(self, node: ast.AST, new: ast.AST, parent: ast.AST | None = None) -> Edits:
        """The smallest parts of a statement or an expression that are others now."""
        if ast.dump(node) == ast.dump(new):
            return
        parts, others = (list(ast.iter_child_nodes(each)) for each in (node, new))
        whole = isinstance(node, ast.JoinedStr | ast.Constant | ast.Name) or len(parts) != len(others)
        if type(node) is type(new) and not whole and own_fields(node) == own_fields(new):
            for one, other in zip(parts, others, strict=True):
                yield from self.changed(one, other, node)
            return
        inner = [each for each in nodes_of(node) if isinstance(each, ast.expr) and ast.dump(each) == ast.dump(new)]
        as_it_was = inner and not isinstance(new, ast.Constant)
        bare = isinstance(new, ast.Name | ast.Constant | ast.Attribute | ast.Call | ast.Subscript)
        place = self.with_brackets(node) if bare and not isinstance(parent, ast.Call) else node
        yield place, ast.get_source_segment(self.text, inner[0]) if as_it_was else source_of(new)

    def with_brackets(self, node: ast.expr) -> Any:
        """The place of an expression together with the brackets around it, if any."""
        line = self.text.split("\n")[node.lineno - 1].encode()
        start, end = node.col_offset - 1, node.end_col_offset + 1
        bracketed = node.lineno == node.end_lineno and line[start : start + 1] + line[end - 1 : end] == b"()"
        return place_between((node.lineno, start), (node.lineno, end)) if bracketed else node

    def members(self, node: ast.ClassDef) -> Edits:
        """What stands otherwise in a class."""
        fields = {name for name, _, _ in self.arguments.get(node.name, ())}
        for place, each in enumerate(node.body):
            targets = getattr(each, "targets", [getattr(each, "target", None)])
            name = getattr(targets[0], "id", "")
            if name in fields or (name in self.attributes and isinstance(each, ast.Assign)):
                yield from left_out(node.body, place)
        bases = [self.constructors[each] for each in map(ast.unparse, node.bases) if each in self.constructors]
        functions = [each for each in node.body if isinstance(each, ast.FunctionDef)]
        methods = [each for each in functions if callee_of(node.name, each) not in self.settlement.unused]
        yield from ((each, "") for each in functions if each not in methods)
        yield from self.statements(methods, Scope(node.name, *bases[:1]))

    def signatures(self, tree: ast.Module) -> Edits:
        """The heads of functions without settled arguments."""
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        for home, body in (("", tree.body), *((node.name, node.body) for node in classes)):
            for node in body:
                settled = self.arguments.get(callee_of(home, node)) if isinstance(node, ast.FunctionDef) else None
                if settled:
                    first = node.body[0]
                    line = min([first.lineno, *(each.lineno for each in getattr(first, "decorator_list", ()))])
                    arguments = without_arguments(node.args, {name for name, _, _ in settled})
                    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
                    head = f"def {node.name}({source_of(arguments)}){returns}:\n{' ' * first.col_offset}"
                    yield place_between((node.lineno, node.col_offset), (line, first.col_offset)), head


def callee_of(home: str, node: ast.FunctionDef) -> str:
    """The name of a function or method among callees."""
    return f"{home}.{node.name}" if home else node.name


def place_between(start: tuple[int, int], end: tuple[int, int]) -> SimpleNamespace:
    """What stands from one line and column of a text to another."""
    return SimpleNamespace(lineno=start[0], col_offset=start[1], end_lineno=end[0], end_col_offset=end[1])


def left_out(body: list[ast.stmt], place: int) -> Edits:
    """A statement and the string after it that says what it means, left out."""
    yield body[place], ""
    match body[place + 1 : place + 2]:
        case [ast.Expr(value=ast.Constant()) as meaning]:
            yield meaning, ""


def without_arguments(arguments: ast.arguments, gone: set[str]) -> ast.arguments:
    """The arguments of a function without some."""
    defaults = dict(zip([each.arg for each in arguments.args[::-1]], arguments.defaults[::-1], strict=False))
    found = copy.deepcopy(arguments)
    found.args = [each for each in arguments.args if each.arg not in gone]
    found.defaults = [defaults[each.arg] for each in found.args if each.arg in defaults]
    named = list(zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True))
    found.kwonlyargs = [each for each, _ in named if each.arg not in gone]
    found.kw_defaults = [default for each, default in named if each.arg not in gone]
    return found


def source_of(node: ast.AST) -> str:
    """The source of a syntax tree, in double quotes."""
    text = ast.unparse(node)
    return text if '"' in text else text.replace("'", '"')


def own_fields(node: ast.AST) -> list[tuple[str, Any]]:
    """What a node consists of beside other nodes."""
    return [(name, value) for name, value in ast.iter_fields(node) if not isinstance(value, ast.AST | list)]


def heads_of(node: ast.AST) -> list[ast.expr]:
    """What a statement that others stand in looks up itself."""
    match node:
        case ast.For():
            return [node.iter]
        case ast.While():
            return [node.test]
        case ast.With():
            return [each.context_expr for each in node.items]
        case ast.Match():
            return [node.subject]
    return []


@functools.lru_cache(4096)
def settled_text(text: str, settlement: Settlement) -> str:
    """See `SettledText`."""
    return SettledText(text, settlement).text if settlement.settles else text


@functools.lru_cache(1024)
def all_names(text: str) -> frozenset[str]:
    """The names and attributes in a text, and those of what it defines."""
    found = [getattr(node, each, None) for node in nodes_of(parsed(text)) for each in ("id", "attr", "name", "arg")]
    return frozenset(each for each in found if isinstance(each, str))


def with_constants(text: str, rounds: list[Settlement]) -> str:
    """A text with constants in place of what one settlement after the other settles."""
    for settlement in rounds:
        text = settled_text(text, settlement.of(all_names(text)))
    return text
