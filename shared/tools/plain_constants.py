"""Arguments and attributes that are the same throughout a plain copy.

A layer, a search or a plot takes arguments for every recipe; of these a copy needs those that its own recipe gives. For
the others stand their defaults, and what these decide is decided: see `shared.tools.plain_settled`.
"""

import ast
import functools
import re
from collections.abc import Iterator
from typing import NamedTuple

from shared.tools.collecting import nodes_of, parsed

OF_KERAS = {"name", "dtype", "trainable", "reduction"}
"""Arguments that Keras notes of everything that it saves."""


DEFAULTS_OF_KERAS = {"use_ema": "False"}
"""Attributes of what Keras makes, as they are where no argument of the same name says otherwise."""


WITHOUT_DEFAULTS = "saves_defaults: ClassVar[bool] = False"
"""How a layer says that its config holds an argument only where it is not the default."""


OTHERS = "**"
"""Stands for arguments whose names are not known."""


Arguments = dict[str, ast.expr | None]
"""Those that a call gives, by name; None for a value that is not known."""


class Settlement(NamedTuple):
    """What is settled of a copy, as hashable pairs: constants are source text."""

    arguments: frozenset[tuple[str, tuple[tuple[str, int, str], ...]]]
    """By callee, as `CopiedCode.callees` names it: argument, its place, and the constant in its place."""
    attributes: frozenset[tuple[str, str]]
    unused: frozenset[str]
    """Methods that nothing calls, as `CopiedCode.callees` names them."""
    constructors: frozenset[tuple[str, str]]
    """By class, or class variable after a dot, the callees that make an object, with commas between; see
    `CopiedCode.constructor_chain`."""

    @property
    def settles(self) -> bool:
        """Whether there is anything."""
        return bool(self.arguments or self.attributes or self.unused)

    def of(self, names: frozenset[str]) -> "Settlement":
        """What concerns a text with these names."""
        return Settlement(
            frozenset(each for each in self.arguments if (set(each[0].split(".")) - {"__init__"}) & names),
            frozenset(each for each in self.attributes if each[0] in names),
            frozenset(each for each in self.unused if set(each.split(".")) <= names),
            frozenset(each for each in self.constructors if each[0].removeprefix(".") in names),
        )


class Callee(NamedTuple):
    """A function, a method, or a class that is made of fields."""

    node: ast.FunctionDef | ast.ClassDef
    home: str
    """The class of a method; "" for a function."""

    @property
    def defaults(self) -> dict[str, ast.expr | None]:
        """The arguments that it takes, in order, each with its default."""
        if isinstance(self.node, ast.ClassDef):
            fields = [each for each in self.node.body if isinstance(each, ast.AnnAssign)]
            return {each.target.id: each.value for each in fields if "ClassVar" not in ast.unparse(each.annotation)}
        arguments = self.node.args
        found = {each.arg: None for each in arguments.args[bool(self.home) :]}
        found |= dict(zip(list(found)[::-1], arguments.defaults[::-1], strict=False))
        return found | dict(zip([each.arg for each in arguments.kwonlyargs], arguments.kw_defaults, strict=True))

    @property
    def changed(self) -> set[str]:
        """The names that mean more than one thing in it."""
        if isinstance(self.node, ast.ClassDef):
            return set()
        inner = [each for each in nodes_of(self.node)[1:] if isinstance(each, ast.FunctionDef | ast.Lambda)]
        found = {part.arg for each in inner for part in nodes_of(each.args) if isinstance(part, ast.arg)}
        names = [each for each in nodes_of(self.node) if isinstance(each, ast.Name)]
        return found | {each.id for each in names if isinstance(each.ctx, ast.Store)}

    def mentions(self, argument: str) -> int:
        """How often it names an argument."""
        return sum(isinstance(each, ast.Name) and each.id == argument for each in nodes_of(self.node))


def is_always_the_same(node: ast.expr | None) -> bool:
    """Whether an expression always gives the same."""
    match node:
        case ast.Tuple():
            return all(map(is_always_the_same, node.elts))
        case ast.UnaryOp():
            return isinstance(node.operand, ast.Constant)
    return isinstance(node, ast.Constant) or (isinstance(node, ast.Name) and node.id.isupper())


def is_run(node: ast.expr) -> bool:
    """Whether an expression means the run, which goes by this name everywhere."""
    return getattr(node, "id", getattr(node, "attr", "")) == "run"


def is_made_of_fields(node: ast.ClassDef) -> bool:
    """Whether a class takes its fields as arguments."""
    return any(re.match("NamedTuple|dataclass", ast.unparse(each)) for each in (*node.bases, *node.decorator_list))


def items_of(node: ast.Dict) -> list[tuple[str, ast.expr]]:
    """The entries of a dictionary whose keys are strings; "" for another key."""
    return [(getattr(key, "value", ""), value) for key, value in zip(node.keys, node.values, strict=True)]


def attributes_of(function: ast.FunctionDef) -> Iterator[tuple[str, str]]:
    """The attributes that a constructor sets to arguments, with the names of these."""
    for node in function.body:
        match node:
            case ast.Assign(
                targets=[ast.Attribute(value=ast.Name(id="self"), attr=attribute)], value=ast.Name(id=name)
            ):
                yield attribute, name
            case ast.AnnAssign(
                target=ast.Attribute(value=ast.Name(id="self"), attr=attribute), value=ast.Name(id=name)
            ):
                yield attribute, name


class CopiedCode:
    """All definitions of a copy, and their calls of each other."""

    def __init__(self, sources: list[str]):
        self.trees = [parsed(source) for source in sources]
        self.nodes = [node for tree in self.trees for node in nodes_of(tree)]
        statements = [node for tree in self.trees for node in tree.body]
        self.functions = {node.name: node for node in statements if isinstance(node, ast.FunctionDef)}
        self.classes = {node.name: node for node in statements if isinstance(node, ast.ClassDef)}
        self.owners: dict[int, tuple[str, ast.FunctionDef | None]] = {}
        """By the id of a node, the class and the function or method that it is in."""
        for node in statements:
            home = node.name if isinstance(node, ast.ClassDef) else ""
            for part in node.body if home else [node]:
                function = part if isinstance(part, ast.FunctionDef) else None
                self.owners |= {id(each): (home, function) for each in nodes_of(part)}
        self.callees = {name: Callee(node, "") for name, node in self.functions.items()}
        """By name: functions, classes of fields, and methods after the class and a dot."""
        for name, node in self.classes.items():
            if is_made_of_fields(node):
                self.callees[name] = Callee(node, "")
            methods = [each for each in node.body if isinstance(each, ast.FunctionDef)]
            self.callees |= {f"{name}.{each.name}": Callee(each, name) for each in methods}
        self.constructors = {name: found for name in self.classes if (found := self.constructor_of(name))}
        self.aliases: list[tuple[str, ast.Name]] = [
            (each.targets[0].id, each.value)
            for node in self.classes.values()
            for each in node.body
            if isinstance(each, ast.Assign) and isinstance(each.value, ast.Name) and each.value.id in self.classes
        ]
        """Class variables that hold a class."""
        self.calls: dict[str, list[ast.Call | ast.Attribute] | None] = {}
        """By the name of a function or class, or by that of a method after a dot: calls, and attributes that hand a
        method on; None for a function that is handed on."""
        self.read_calls()

    def constructor_of(self, name: str) -> str:
        """The callee that makes an object of a class; "" where it is not here."""
        if f"{name}.__init__" in self.callees:
            return f"{name}.__init__"
        return name if name in self.callees else next(filter(None, map(self.constructor_of, self.bases(name))), "")

    def bases(self, name: str) -> list[str]:
        """The classes here that a class inherits from at once."""
        return [each for each in map(ast.unparse, self.classes[name].bases) if each in self.classes]

    def family(self, name: str) -> set[str]:
        """A class and those that it inherits from."""
        return {name} | {each for base in self.bases(name) for each in self.family(base)}

    def read_calls(self) -> None:
        """Notes all calls, and what is handed on."""
        known = {id(each) for node in self.nodes for each in self.harmless(node)}
        for node in self.nodes:
            match node:
                case ast.Call(func=ast.Name(id="cls")):
                    self.note(self.owners[id(node)][0], node)
                case ast.Call(func=ast.Attribute(attr="__init__", value=ast.Call(func=ast.Name(id="super")))):
                    for base in self.bases(self.owners[id(node)][0]):
                        self.note(base, node)
                case ast.Call(func=ast.Name(id=name)):
                    self.note(name, node)
                case ast.Call(func=ast.Attribute(attr=name)):
                    self.note(f".{name}", node)
                case ast.FunctionDef():
                    for each in node.decorator_list:
                        if isinstance(each, ast.Name):
                            self.note(each.id, ast.Call(each, [each], []))
                case ast.Name(id=name, ctx=ast.Load()) if id(node) not in known:
                    self.calls[name] = None
                case ast.Attribute(attr=name, ctx=ast.Load()) if id(node) not in known:
                    self.note(f".{name}", node)
        for alias, held in self.aliases:
            for each in self.calls.get(f".{alias}", []):
                if isinstance(each, ast.Call):
                    self.note(held.id, each)

    def harmless(self, node: ast.AST) -> Iterator[ast.AST]:
        """The names in a node that are no functions handed on: those that it calls, types, bases and decorators."""
        match node:
            case ast.Call(func=ast.Name(id="isinstance"), args=[_, kind]):
                yield from (node.func, *nodes_of(kind))
            case ast.Call():
                yield node.func
            case ast.ClassDef():
                yield from node.bases
                yield from (held for _, held in self.aliases)
            case ast.FunctionDef():
                yield from node.decorator_list
                yield from nodes_of(node.returns) if node.returns else ()
            case ast.arg(annotation=annotation) | ast.AnnAssign(annotation=annotation) if annotation:
                yield from nodes_of(annotation)

    def note(self, name: str, call: ast.Call | ast.Attribute) -> None:
        """Notes a call, or a method that is handed on."""
        if self.calls.setdefault(name, []) is not None:
            self.calls[name].append(call)

    def calls_of(self, name: str) -> list[ast.Call] | None:
        """The calls of a callee; None where it may be called in any way."""
        home, _, method = name.rpartition(".")
        if home and method != "__init__":
            found = [each for each in self.calls.get(f".{method}", []) if self.may_call(each, home)]
            return found if all(isinstance(each, ast.Call) for each in found) else None
        makers = [each for each, maker in self.constructors.items() if maker == name]
        found = [self.calls.get(each, []) for each in makers or [name]]
        return None if None in found else [call for calls in found for call in calls]

    def may_call(self, call: ast.Call | ast.Attribute, home: str) -> bool:
        """Whether a call of a method, or a mention of it, may mean that of a class."""
        method = call.func if isinstance(call, ast.Call) else call
        match method.value:
            case ast.Name(id="self" | "cls") | ast.Call(func=ast.Name(id="super")):
                here = self.owners[id(call)][0]
                return home in self.family(here) or here in self.family(home)
        return is_run(method.value) == (home == "Run")

    def arguments_of(self, call: ast.Call, callee: Callee, seen: tuple[str, ...] = ()) -> Arguments | None:
        """The arguments that a call gives; None where they are not known."""
        if any(isinstance(each, ast.Starred) for each in call.args):
            return None
        found: Arguments = dict(zip(callee.defaults, call.args, strict=False))
        for keyword in call.keywords:
            entries = {keyword.arg: keyword.value} if keyword.arg else self.entries(keyword.value, call, seen)
            found |= {OTHERS: None} if entries is None else entries
        return found

    def entries(self, node: ast.expr, place: ast.AST, seen: tuple[str, ...]) -> Arguments | None:
        """The entries of a dictionary of arguments; None where they are not known."""
        home, function = self.owners.get(id(place), ("", None))
        match node:
            case ast.Dict():
                return None if None in node.keys else dict(items_of(node))
            case ast.BinOp(op=ast.BitOr()):
                both = [self.entries(each, place, seen) for each in (node.left, node.right)]
                return None if None in both else both[0] | both[1]
            case ast.Name() if function and function.args.kwarg and function.args.kwarg.arg == node.id:
                return self.handed_on(f"{home}.{function.name}" if home else function.name, seen)
            case ast.Name() if function:
                assigned = [each for each in nodes_of(function) if isinstance(each, ast.Assign)]
                values = [each.value for each in assigned if ast.unparse(each.targets[0]) == node.id]
                return self.entries(values[0], place, seen) if len(values) == 1 else None
        return None

    def handed_on(self, name: str, seen: tuple[str, ...]) -> Arguments | None:
        """The arguments that calls of a function give beside those that it knows; None where they are not known."""
        calls = self.calls_of(name)
        if calls is None or name in seen:
            return None
        callee = self.callees[name]
        given = [self.arguments_of(each, callee, (*seen, name)) for each in calls]
        if None in given:
            return None
        found: Arguments = {}
        for each in {each for one in given for each in one} - callee.defaults.keys():
            values = [one.get(each) for one in given]
            same = all(map(is_always_the_same, values)) and len(set(map(ast.unparse, values))) == 1
            found[each] = values[0] if same else None
        return found

    def is_saved(self, name: str) -> bool:
        """Whether objects of a class, or of one that inherits from it, may be part of a saved model: they are if
        functions make them, and not if only other layers do."""
        calls = self.calls.get(name, [])
        registered = "register_keras_serializable" in "".join(map(ast.unparse, self.classes[name].decorator_list))
        outside = calls is None or any(not self.owners.get(id(each), ("", None))[0] for each in calls)
        heirs = [each for each in self.classes if name in self.bases(each)]
        return (registered and outside) or any(map(self.is_saved, heirs))

    def saved_arguments(self, name: str) -> set[str]:
        """The arguments of a class that a saved model may hold."""
        if WITHOUT_DEFAULTS in ast.unparse(self.classes[name]) or not self.is_saved(name):
            return set()
        if f"{name}.get_config" not in self.callees:  # Keras notes them
            return set(self.callees[f"{name}.__init__"].defaults) | OF_KERAS
        config = self.callees[f"{name}.get_config"].node
        return OF_KERAS | {each.value for each in nodes_of(config) if isinstance(each, ast.Constant)}

    def settled_arguments(self, name: str) -> dict[str, ast.expr]:
        """The arguments of a callee that are the same in each call."""
        callee, calls = self.callees[name], self.calls_of(name)
        home, _, method = name.rpartition(".")
        made = method == "__init__"
        if not calls or (home and method.startswith("__") and not made) or "Config" in (home, name):
            return {}
        given = [self.arguments_of(each, callee) for each in calls]
        if None in given:
            return {}
        kept = callee.changed | (self.saved_arguments(home) if made else set())
        # Which class a method is of is not known, nor, where a loader of one's own is put in, what data this gives.
        as_said = (home and home != "Run" and not made) or name.startswith("load_")
        found = {}
        for argument, default in callee.defaults.items():
            values = [each.get(argument, None if OTHERS in each else default) for each in given]
            if argument in kept or not all(map(is_always_the_same, values)) or len(set(map(ast.unparse, values))) > 1:
                continue
            value = values[0]
            usual = is_always_the_same(default) and ast.unparse(default) == ast.unparse(value)
            of_flags = isinstance(value, ast.Constant) and isinstance(value.value, bool | None)
            of_numbers = isinstance(value, ast.Constant) and isinstance(value.value, int | float)
            says_more = of_numbers and value.value not in (0, 1) and callee.mentions(argument) > 1  # by its name
            said = as_said and any(argument in each for each in given)
            if (usual or of_flags) and not says_more and not said:
                found[argument] = value
        return found

    def settlement(self, hooks: set[str]) -> Settlement:
        """What is settled; `hooks` are methods that others call."""
        names = [each for each in self.callees if "." not in each or each.rpartition(".")[2] not in hooks]
        settled = {name: self.settled_arguments(name) for name in names}
        for name, found in settled.items():
            if isinstance(self.callees[name].node, ast.ClassDef):
                settled[name] = {each: value for each, value in found.items() if self.is_settled(each, value, settled)}
        arguments = {}
        for name, found in settled.items():
            places = {each: place for place, each in enumerate(self.callees[name].defaults)}
            if found:
                arguments[name] = tuple((each, places[each], ast.unparse(value)) for each, value in found.items())
        looked_up = [each for each in self.nodes if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Load)]
        read = {each.attr for each in looked_up}
        candidates = {name: value for name, value in self.candidates(settled) if name in read}
        return Settlement(
            frozenset(arguments.items()),
            frozenset(
                (name, ast.unparse(value))
                for name, value in candidates.items()
                if self.is_settled(name, value, settled)
            ),
            frozenset(name for name in names if self.is_unused(name)),
            frozenset(self.makers()),
        )

    def is_unused(self, name: str) -> bool:
        """Whether a callee is a method that nothing calls or hands on."""
        home, _, method = name.rpartition(".")
        found = self.calls.get(f".{method}", [])
        return bool(home) and not method.startswith("__") and not any(self.may_call(each, home) for each in found)

    def candidates(self, settled: dict[str, dict[str, ast.expr]]) -> Iterator[tuple[str, ast.expr]]:
        """Attributes that may be the same everywhere: fields, what constructors set to arguments, class variables."""
        given = {getattr(each, "arg", getattr(each, "value", None)) for each in self.nodes}  # also in dictionaries
        yield from ((name, expression(value)) for name, value in DEFAULTS_OF_KERAS.items() if name not in given)
        for name, found in settled.items():
            if isinstance(self.callees[name].node, ast.ClassDef):
                yield from found.items()
            elif name.endswith(".__init__"):
                pairs = attributes_of(self.callees[name].node)
                yield from ((attribute, found[argument]) for attribute, argument in pairs if argument in found)
        for node in self.classes.values():
            for each in node.body if not node.bases else ():
                match each:
                    case ast.Assign(targets=[ast.Name(id=attribute)]) if is_always_the_same(each.value):
                        yield attribute, each.value

    def makers(self) -> Iterator[tuple[str, str]]:
        """See `Settlement.constructors`."""
        for name in self.classes:
            if chain := ",".join(self.constructor_chain(name)):
                yield name, chain
                yield from ((f".{alias}", chain) for alias, held in self.aliases if held.id == name)

    def constructor_chain(self, name: str) -> list[str]:
        """The callees that get the arguments of a class: the first, and as far as this hands on what it does not know,
        those of the classes that it inherits from."""
        first = self.constructor_of(name)
        if not first:
            return []
        node = self.callees[first].node
        hands_on = isinstance(node, ast.FunctionDef) and node.args.kwarg
        bases = self.bases(first.partition(".")[0]) if hands_on else []
        return [first, *(each for base in bases for each in self.constructor_chain(base))]

    def is_settled(self, attribute: str, value: ast.expr, settled: dict[str, dict[str, ast.expr]]) -> bool:
        """Whether whatever has an attribute of this name has it with this value."""
        found = [each for node in self.nodes for each in self.values_of(attribute, node, settled)]
        return all(each is not None and ast.unparse(each) == ast.unparse(value) for each in found)

    def values_of(
        self, attribute: str, node: ast.AST, settled: dict[str, dict[str, ast.expr]]
    ) -> Iterator[ast.expr | None]:
        """What a node sets an attribute to; None for what is not known."""
        match node:
            case ast.Call(func=ast.Name(id="getattr" | "setattr" | "hasattr")):
                yield from (None for each in node.args if getattr(each, "value", None) == attribute)
            case ast.Call(func=ast.Name(id="replace"), args=[ast.Name(id="config") | ast.Attribute(attr="config")]):
                pass  # the options are never settled
            case ast.Call(func=ast.Name(id="replace") | ast.Attribute(attr="_replace")):
                yield from (None for each in node.keywords if each.arg in (attribute, None))
            case ast.Attribute(attr=name, ctx=ast.Store() | ast.Del()) if name == attribute:
                home, function = self.owners[id(node)]
                made = function is not None and function.name == "__init__"
                stored = [each for each in attributes_of(function) if each[0] == attribute] if made else []
                given = settled.get(f"{home}.__init__", {})
                yield given.get(stored[0][1]) if len(stored) == 1 else None
            case ast.ClassDef():
                for each in node.body:
                    targets = getattr(each, "targets", [getattr(each, "target", each)])
                    if any(attribute in (getattr(one, "id", ""), getattr(one, "name", "")) for one in targets):
                        fields = settled.get(node.name, {})
                        yield each.value if isinstance(each, ast.Assign) else fields.get(attribute)


@functools.lru_cache(4096)
def expression(text: str) -> ast.expr:
    """The syntax tree of an expression: not to be changed."""
    return ast.parse(text, mode="eval").body
