"""The pages for readers: their links lead somewhere, their commands run, and nothing is said twice."""

import dataclasses
import importlib
import os
import re
import runpy
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from conftest import PROJECT

from shared.tools.project import recipe_paths

pytestmark = pytest.mark.once

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md")), *sorted(PROJECT.glob("results/*/README.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def prose_of(page: Path) -> str:
    """A page without its blocks of code."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors_of(page: Path) -> set[str]:
    """What headings of a page are called in links, as GitHub and MyST do."""
    found = Counter()
    anchors = set()
    for heading in re.findall(r"^#+ (.*)$", prose_of(page), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        anchors.add(f"{slug}-{found[slug]}" if found[slug] else slug)
        found[slug] += 1
    return anchors


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"`[^`\n]*`", "", prose_of(page))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in anchors_of(path), f"{page}: {target}"


def test_every_page_is_reached_from_the_readme():
    reached, todo = set(), [PROJECT / "README.md"]
    while todo:
        page = todo.pop()
        if page not in reached:
            reached.add(page)
            links = re.findall(r"\]\(([^)\s#]+\.md)", prose_of(page))
            todo += [(page.parent / link).resolve() for link in links if not link.startswith("http")]
    assert set(PAGES) <= reached


def test_the_readme_is_short():
    assert len((PROJECT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
    assert (PROJECT / "docs/figures/sheet.png").stat().st_size < 400_000


def test_nothing_is_said_twice():
    """No sentence stands on two hand-written pages."""
    pages = [*PAGES[:1], *sorted((PROJECT / "docs").glob("*.md")), *PROJECT.glob("results/*/notes.md")]
    homes: dict[str, list[str]] = {}
    for page in pages:
        paragraphs = re.split(r"\n\s*\n|^\s*\* ", prose_of(page), flags=re.MULTILINE)
        for paragraph in paragraphs:
            for sentence in re.split(r"(?<=[.:]) ", " ".join(paragraph.split())):
                if len(sentence) > 60 and not sentence.startswith("|"):
                    homes.setdefault(sentence, []).append(str(page.relative_to(PROJECT)))
    assert {sentence: places for sentence, places in homes.items() if len(places) > 1} == {}


def runnable_commands() -> list[str]:
    """The commands of the pages that are marked as runnable, each once."""
    blocks = [
        block
        for page in PAGES
        for block in re.findall(
            r"<!-- runnable -->\n```bash\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        )
    ]
    lines = [re.sub(r"\s+# .*", "", line) for block in blocks for line in block.splitlines()]
    return list(dict.fromkeys(line for line in lines if line))


@pytest.mark.parametrize("command", runnable_commands())
def test_commands_that_are_marked_as_runnable_run(command, tmp_path):
    (tmp_path / "recipes").symlink_to(PROJECT / "recipes")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, runs in (("python", ""), ("recipes", " -m shared.tools.cli")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{runs} "$@"\n', encoding="utf-8")
        (programs / name).chmod(0o755)
    path = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(PROJECT)}
    here = re.sub(r"KERAS_BACKEND=\w+", f"KERAS_BACKEND={os.environ['KERAS_BACKEND']}", command)
    process = subprocess.run(
        here, shell=True, cwd=tmp_path, env=os.environ | path, capture_output=True, encoding="utf-8", timeout=300
    )
    assert process.returncode == 0, process.stderr[-2000:]
    assert process.stdout


def test_marked_commands_are_those_that_newcomers_type():
    names = " ".join(runnable_commands())
    for command in ("recipes list", "recipes doctor", "recipes copy", "--preset test"):
        assert command in names


@pytest.mark.parametrize("recipe", recipe_paths(), ids=lambda path: path.stem)
def test_the_site_shows_the_whole_source_of_a_recipe(recipe):
    text = runpy.run_path(str(PROJECT / "docs/conf.py"))["annotated_source"](recipe)
    shown = re.findall(
        r"^```\{code-block\} python\n:lineno-start: (\d+)\n\n(.*?)\n```$", text, re.MULTILINE | re.DOTALL
    )
    lines = recipe.read_text(encoding="utf-8").splitlines()
    covered = set()
    for start, code in shown:
        for number, line in enumerate(code.splitlines(), int(start)):
            assert lines[number - 1] == line
            covered.add(number)
    assert all(number in covered or not line for number, line in enumerate(lines, 1))
    for module, name in re.findall(r"^from (shared\.\S+) import (\w+)$", "\n".join(lines), re.MULTILINE):
        if name in "\n".join(lines[30:]):
            assert f"* [`{name}`](../../{module.replace('.', '/')}.py): " in text


def test_the_front_page_of_the_site_has_a_card_for_each_recipe():
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    text = runpy.run_path(str(PROJECT / "docs/conf.py"))["front_page"](readme)
    for path in recipe_paths():
        assert f"{{grid-item-card}} {path.stem}\n:link: results/{path.stem}/README\n" in text
        assert f"\n{path.stem} <results/{path.stem}/README>\n" in text
    for page in (PROJECT / "docs").glob("*.md"):
        assert f"\ndocs/{page.stem}\n" in text


def test_options_of_the_learning_path_are_options_of_recipes():
    configs = [importlib.import_module(f"recipes.{path.stem}").Config for path in recipe_paths()]
    fields = {field.name.replace("_", "-") for config in configs for field in dataclasses.fields(config)}
    text = (PROJECT / "docs/learning-path.md").read_text(encoding="utf-8")
    options = {option.removeprefix("no-") for option in re.findall(r"--([a-z][a-z0-9-]+)", text)}
    assert options - fields == {"native", "chat"}  # of recipes compare, and of the predictor of gpt_text
