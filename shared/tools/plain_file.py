"""What makes a plain copy shorter once it is one file."""

import ast
import copy
import itertools
import re
import textwrap
from collections import Counter
from collections.abc import Iterator

from shared.tools.collecting import nodes_of, parsed
from shared.tools.plain_text import edited, is_layer


def called_functions(text: str, always: set[str], once: set[str]) -> dict[str, ast.FunctionDef]:
    """Of some functions those that only return a call, a sum or an attribute and are only called, by name.

    Args:
        text: a whole file.
        always: functions that may be called often.
        once: functions that may be called once, and return what fits in a line.
    """
    tree = parsed(text)
    mentions = Counter(node.id for node in nodes_of(tree) if isinstance(node, ast.Name))
    calls = Counter(node.func.id for node in nodes_of(tree) if isinstance(node, ast.Call) and hasattr(node.func, "id"))
    simple = (ast.Name, ast.Attribute, ast.Constant, ast.Subscript)
    given = {
        node.func.id: all(isinstance(each, simple) for each in (*node.args, *(one.value for one in node.keywords)))
        for node in nodes_of(tree)
        if isinstance(node, ast.Call) and hasattr(node.func, "id")
    }
    renaming = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and only_renames(node)}
    taken = {*always, *(name for name in once if name in renaming or (calls[name] == 1 and given[name]))}
    return {
        node.name: node
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name in taken and mentions[node.name] == calls[node.name]
        and isinstance(node.body[-1], ast.Return) and len(node.body) == 1 + bool(ast.get_docstring(node))
        and isinstance(node.body[-1].value, ast.Call | ast.BinOp | ast.Attribute)
        and (node.name in always or node.body[-1].lineno == node.body[-1].end_lineno)
        and not any(isinstance(each, ast.Lambda | ast.IfExp | ast.comprehension) for each in nodes_of(node))
    }  # fmt: skip


def only_renames(function: ast.FunctionDef) -> bool:
    """Whether a function calls another with its own arguments, and does nothing else."""
    match function.body[-1]:
        case ast.Return(value=ast.Call(func=ast.Name(), args=arguments, keywords=[])):
            names = [getattr(each, "id", "") for each in arguments]
            return names == [each.arg for each in function.args.args]
    return False


class Substituted(ast.NodeTransformer):
    """Puts expressions in place of names."""

    def __init__(self, expressions: dict[str, ast.expr]):
        self.expressions = expressions

    def visit_Name(self, node):
        return self.expressions.get(node.id, node)


def expression_of(call: ast.Call, arguments: ast.arguments, body: ast.expr) -> ast.expr:
    """What a call computes, of a function with these arguments and an expression as its body."""
    names = [each.arg for each in arguments.args]
    values = dict(zip(names[::-1], arguments.defaults[::-1], strict=False))
    values |= dict(zip(names, call.args, strict=False)) | {each.arg: each.value for each in call.keywords}
    found = Substituted(values).visit(copy.deepcopy(body))
    if isinstance(found, ast.Call) and isinstance(found.func, ast.Lambda):
        return expression_of(found, found.func.args, found.func.body)
    return found


def with_expressions(text: str, always: set[str], once: set[str]) -> str:
    """A text with what functions of a single expression compute, rather than calls of them; see `called_functions`."""
    functions = called_functions(text, always, once)

    def calls(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
        outer: set[int] = set()
        parents = {id(child): node for node in nodes_of(tree) for child in ast.iter_child_nodes(node)}
        for node in nodes_of(tree):
            name = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
            if name in functions and id(node) not in outer:
                outer |= {id(each) for each in nodes_of(node)}
                function = functions[name]
                found = expression_of(node, function.args, function.body[-1].value)
                plain = isinstance(found, ast.Call | ast.Attribute) or isinstance(
                    parents[id(node)], ast.Call | ast.Assign | ast.Return
                )
                yield node, ast.unparse(found) if plain else f"({ast.unparse(found)})"

    while (changed := edited(text, calls)) != text:
        text = changed
    return edited(text, lambda tree: ((node, "") for node in tree.body if getattr(node, "name", "") in functions))


def with_comments(text: str) -> str:
    """A text whose fields and constants have a comment beside them in place of a docstring below, where it fits.

    Of one that does not fit, beside what is no option, the first sentence.
    """
    lines = text.split("\n")
    for node in nodes_of(ast.parse(text)):
        statements = getattr(node, "body", None)
        for one, other in itertools.pairwise(statements if isinstance(statements, list) else ()):
            match one, other:
                case ast.Assign() | ast.AnnAssign(), ast.Expr(value=ast.Constant(value=str(meaning))):
                    line, meaning = lines[one.lineno - 1], " ".join(meaning.split())
                    is_option = getattr(node, "name", "") == "Config"
                    shorter = meaning if is_option else re.split(r"(?<!al\.)(?<=\.) |; ", meaning)[0]
                    beside = next((each for each in (meaning, shorter) if len(f"{line}  # {each}") <= 120), None)
                    if beside and one.lineno == one.end_lineno and other.lineno == one.lineno + 1 and "#" not in line:
                        lines[one.lineno - 1] = f"{line}  # {beside}"
                        lines[other.lineno - 1 : other.end_lineno] = [None] * (other.end_lineno - other.lineno + 1)
    return "\n".join(line for line in lines if line is not None)


def without_marks(text: str) -> str:
    """A text without what layers say to `shared.tools.plain_constants` alone."""
    return re.sub(r'\n    saves_defaults: .*\n    """.*"""\n', "", text)


def without_output_shapes(text: str) -> str:
    """A text without the methods that say what shape layers give, which Keras finds by itself, unless others ask."""
    classes = [node for node in parsed(text).body if isinstance(node, ast.ClassDef)]
    asking = r"(?<!self)(?<!super\(\))\.compute_output_shape\("
    asked = {
        node.func.id
        for each in classes
        if re.search(asking, ast.unparse(each))
        for node in nodes_of(each)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }

    def methods(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
        for each in tree.body:
            if isinstance(each, ast.ClassDef) and each.name not in asked and is_layer(each):
                for method in each.body if "self.compute_output_shape(" not in ast.unparse(each) else ():
                    if getattr(method, "name", "") == "compute_output_shape":
                        yield method, ""

    return edited(text, methods)


def with_one_history(text: str) -> str:
    """A text whose run has one history where it has one phase of training."""
    if re.search(r"histories\[(?!''\]|\"\"\])", text):
        return text
    text = re.sub(
        r"self\.histories: dict\[str, (.*)\] = \{\}.*", r"self.history: \1 = []  # the results of each epoch", text
    )
    text = re.sub(r"\n    @property\n    def history\(self\).*\n.*\n", "", text)
    return re.sub(r"self\.histories\[..\]", "self.history", text)


def with_joined_attributes(text: str) -> str:
    """A text with attributes of the same names as arguments set together, as many as a line holds."""
    found: list[str] = []
    names: list[str] = []
    for line in text.split("\n"):
        match = re.fullmatch(r"( +)self\.(\w+) = \2", line)
        more = [*names, match[2]] if match else []
        together = f"{match[1]}{', '.join(f'self.{name}' for name in more)} = {', '.join(more)}" if match else line
        if names and match and len(together) <= 120:
            names, found[-1] = more, together
        else:
            names = more[-1:]
            found.append(line)
    return "\n".join(found)


def without_blank_lines(text: str) -> str:
    """A text without blank lines below banners and below the docstrings of classes."""
    text = re.sub(r"^(# -{20,} .*\n)\n+", r"\1", text, flags=re.MULTILINE)
    return re.sub(r'^(class .*\n(?:    """(?:(?!""").|\n)*?"""\n))\n(?= )', r"\1", text, flags=re.MULTILINE)


def depth_of(line: str) -> int:
    """How far a line is indented."""
    return len(line) - len(line.lstrip())


def filled(text: str) -> str:
    """A formatted text with what stands in brackets, an entry a line, put together in lines as long as they may be.

    Tables of functions stay as they are.
    """
    found: list[str] = []
    for line in text.split("\n"):
        found.append(line)
        if not re.match(r" *[)\]}]", line):
            continue
        depth = depth_of(line)
        start = next(i for i in range(len(found) - 2, -1, -1) if found[i] and depth_of(found[i]) <= depth)
        entries, entry = found[start + 1 : -1], re.compile(rf" {{{depth + 4}}}(?! )((?!  # ).)*,")
        is_table = any('": lambda' in each for each in entries)
        if re.search(r"[(\[{]$", found[start]) and entries and all(map(entry.fullmatch, entries)) and not is_table:
            indent = " " * (depth + 4)
            words = " ".join(each.strip().replace(" ", "\0") for each in entries)
            together = textwrap.fill(
                words, 120, initial_indent=indent, subsequent_indent=indent, break_long_words=False,
                break_on_hyphens=False,
            )  # fmt: skip
            found[start + 1 : -1] = together.replace("\0", " ").split("\n")
    return "\n".join(found)
