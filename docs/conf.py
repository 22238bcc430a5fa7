"""The site, by Sphinx: the README, docs/ and the page of each recipe as they stand, and what only a site has.

That is cards in place of the table of recipes, the sidebar, and the annotated source on the page of each recipe.
`ci/docs.sh` builds it.
"""

import ast
import re
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

project = "Keras Recipes"
extensions = ["myst_parser", "sphinx_design"]
root_doc = "README"
include_patterns = ["README.md", "docs/*.md", "results/*/README.md"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
smartquotes = False  # --option stays --option
html_theme = "furo"
html_title = project
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False

TABLE = re.compile(r"<!-- table recipes -->\n.*?\n\|[-|]+\|\n(.*?)\n<!-- end -->", re.DOTALL)


def front_page(text: str) -> str:
    """The README with a card for each recipe and the sidebar."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in TABLE.search(text)[1].splitlines()]
    names = [re.match(r"\[(\w+)\]", row[1])[1] for row in rows]
    cards = [card(name, *row) for name, row in zip(names, rows, strict=True)]
    grid = "\n\n".join([":::::{grid} 1 2 2 3\n:gutter: 3", *cards, ":::::"])
    linked = re.findall(r"\((docs/[\w-]+)\.md", text)
    others = sorted(f"docs/{path.stem}" for path in (ROOT / "docs").glob("*.md"))
    guide = list(dict.fromkeys([*linked, *others]))
    recipes = [f"{name} <results/{name}/README>" for name in names]
    text = TABLE.sub(lambda match: grid, text)
    return "\n\n".join([text, sidebar("Guide", guide), sidebar("Recipes", recipes)])


def card(name: str, field: str, page: str, task: str, data: str, result: str, source: str) -> str:
    """A card of the front page, of a row of the table, with a figure of the recipe where one is kept."""
    figures = sorted((ROOT / "results" / name).glob("*.png"))
    picture = f":img-top: results/{name}/{figures[-1].name}\n" if figures else ""
    link = f":link: results/{name}/README\n:link-type: doc\n"
    footer = f":::{{card-footer}}\n{field} · {data} · {result}\n:::"
    return f"::::{{grid-item-card}} {name}\n{link}{picture}\n{task}\n\n{footer}\n::::"


def sidebar(caption: str, pages: list[str]) -> str:
    """A part of the sidebar."""
    return "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```"])


def annotated_source(recipe: Path) -> str:
    """The source of a recipe in Markdown, a section for each class and function, with what it uses of `shared`."""
    source = recipe.read_text(encoding="utf-8")
    lines, tree = source.splitlines(), ast.parse(source)
    homes = {
        alias.name: node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module.startswith("shared.")
        for alias in node.names
    }
    sections = ["## Annotated source"]
    definitions = [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    starts = [min([node.lineno, *(each.lineno for each in node.decorator_list)]) - 1 for node in definitions]
    for start, end, node in zip([0, *starts], [*starts, len(lines)], [None, *definitions], strict=True):
        name = "Imports" if node is None else f"`{node.name}`"
        doc = "" if node is None else ast.get_docstring(node) or ""
        code = "\n".join(lines[start:end]).strip("\n")
        used = [] if node is None else used_names(node, homes)
        sections += [
            f"### {name}",
            doc.partition("\n\n")[0],
            f"```{{code-block}} python\n:lineno-start: {start + 1}\n\n{code}\n```",
            "\n".join(f"* [`{each}`](../../{homes[each].replace('.', '/')}.py): {about(each, homes)}" for each in used),
        ]
    return "\n\n".join(section for section in sections if section) + "\n"


def used_names(node: ast.AST, homes: dict[str, str]) -> list[str]:
    """The names imported from `shared` that a definition uses, in order."""
    names = [each.id for each in ast.walk(node) if isinstance(each, ast.Name) and each.id in homes]
    return list(dict.fromkeys(names))


def about(name: str, homes: dict[str, str]) -> str:
    """The first line of the docstring of a name of `shared`."""
    body = ast.parse((ROOT / f"{homes[name].replace('.', '/')}.py").read_text(encoding="utf-8")).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return (ast.get_docstring(node) or "").partition("\n")[0]
        is_named = isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name
        if is_named and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            return str(after.value.value).partition("\n")[0]
    return f"of {homes[name]}."


def adapt(app, page: str, source: list[str]) -> None:
    """Adds to a page what only the site has."""
    if page == root_doc:
        source[0] = front_page(source[0])
    elif recipe := re.fullmatch(r"results/(\w+)/README", page):
        path = ROOT / "recipes" / f"{recipe[1]}.py"
        text = source[0].replace(f"(../../recipes/{path.name})", "(#annotated-source)")
        source[0] = f"{text}\n{annotated_source(path)}"


def add_index(app, exception: Exception | None) -> None:
    """Makes the front page the one that is shown for the folder."""
    if exception is None:
        shutil.copy(Path(app.outdir) / "README.html", Path(app.outdir) / "index.html")


def setup(app) -> None:
    """Called by Sphinx."""
    app.connect("source-read", adapt)
    app.connect("build-finished", add_index)
