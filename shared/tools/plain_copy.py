"""The plain copy of a recipe: one file in plain Keras that reads downwards, the recipe first."""

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from shared.tools.collecting import PLAIN, Collection, names_bound, names_used, nodes_of, parsed
from shared.tools.plain_constants import CopiedCode
from shared.tools.plain_settled import with_constants
from shared.tools.plain_text import HOOKS, Uses, annotations, plain_text, used_text, uses_in
from shared.tools.project import PROJECT

SECTIONS = {
    "The layers and losses": ("layers", "losses", "likelihood", "latents", "prior"),
    "Metrics and figures": ("metrics", "evaluation", "report", "evaluation_networks", "plots", "grad_cam"),
    "Using the model": (
        "prediction", "predictors", "decoding", "sampling", "samplers", "beam_search", "language_model", "causal_model",
        "chat_tuning", "samples", "responder", "translator", "gan_sampling", "instances", "coding",
    ),
    "The data": (
        "data", "batches", "gan_batches", "augment", "rand_augment", "pairs", "subwords", "tokens", "dialogue",
        "pixels",
    ),
    "The loop": ("training", "backends", "errors", "files"),
}  # fmt: skip
"""The parts of a plain copy below the recipe: what is in files or else folders of these names. All else is in the
first."""


class Piece(NamedTuple):
    """A definition, or another statement of a recipe."""

    file: str
    name: str
    source: str


def unreached_names(collection: Collection) -> set[str]:
    """The definitions that nothing but annotations name."""
    tree_of = {bound: source for _, _, source in collection.blocks() for bound in bound_by(source)}
    found: set[str] = set()

    def reach(source: str) -> None:
        tree = parsed(source)
        said = {id(node) for annotation in annotations(tree) for node in nodes_of(annotation)}
        for node in nodes_of(tree):
            if isinstance(node, ast.Name) and id(node) not in said and node.id in tree_of and node.id not in found:
                found.add(node.id)
                reach(tree_of[node.id])

    for statement in collection.recipe.statements:
        reach(statement)
    return tree_of.keys() - found


def plain_collection(recipe: Path, backends: tuple[str, ...]) -> Collection:
    """What a plain copy consists of."""
    uses, unreached, settled = Uses(frozenset(), frozenset()), set(), []

    def edit(text: str) -> str:
        return used_text(with_constants(plain_text(text, backends), settled), uses, unreached)

    def collect() -> tuple[Collection, Uses, list[str]]:
        collection = Collection(recipe, plain=True, edit=edit)
        sources = [source for _, _, source in collection.blocks()]
        return collection, uses_in(sources), sources

    while True:  # what is called may call more
        collection, found, sources = collect()
        more = Uses(*(one | other for one, other in zip(uses, found, strict=True)))
        if more == uses:
            break
        uses = more
    while True:  # and without what is not called, less is
        unused = unreached_names(collection) - unreached
        settlement = CopiedCode(sources).settlement(HOOKS)
        if not unused and not settlement.settles and found == uses:
            return collection
        unreached |= unused
        settled += [settlement] if settlement.settles else []
        uses = found
        collection, found, sources = collect()


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

    found = {each for statement in parsed(source).body for each in expressions(statement)}
    return {name.id for each in found for name in nodes_of(each) if isinstance(name, ast.Name)}


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
    (tree,), lines, found, name = parsed(source).body, source.split("\n"), {}, ""
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
    (tree,) = parsed(source).body
    head = source.split("\n")[: tree.body[0].end_lineno]
    head = [re.sub(r"\(\w+\):$", ":", line) if line.startswith("class ") else line for line in head]
    fields = [member.source + member.meaning for member in merged.values() if not member.is_method]
    methods = [member.source for member in merged.values() if member.is_method]
    return "\n".join([*head, "", fields[0], "", *fields[1:], "", "\n\n".join(methods)])


def base_options(pieces: list[Piece], config: Piece) -> list[Piece]:
    """The classes that the options of a recipe inherit from, the first first."""
    (tree,) = parsed(config.source).body
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
        for piece in sorted(members, key=lambda each: (not is_constant(each.source), ranks[each.file], places[each])):
            emit(piece, into)
    for piece in late:
        needed = homes[next(name for name in names_in_order(piece.source) if name in homes and homes[name] in pieces)]
        emit(piece, next(into for into in sections.values() if needed in into))
    return top, sections, [piece for piece in recipe if piece.name == "launch"]


def bound_by(source: str) -> list[str]:
    """The names that a statement binds."""
    return [name for node in parsed(source).body for name in names_bound(node)]


def is_constant(source: str) -> bool:
    """Whether a statement is an assignment."""
    return isinstance(parsed(source).body[0], ast.Assign | ast.AnnAssign)


def names_in_order(source: str) -> list[str]:
    """The names that a statement uses, as they come."""
    used = names_used(source)
    names = [node for node in nodes_of(parsed(source)) if isinstance(node, ast.Name)]
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
