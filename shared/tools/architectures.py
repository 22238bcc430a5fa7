"""The table of architectures: what each costs, and what it reaches in the same time."""

import json
from typing import Any

from shared.tools.project import PROJECT
from shared.tools.records import read_records


def architectures_table(recipe: str) -> str:
    """Size, cost, step time and accuracy at one budget of the architectures of a recipe, in Markdown.

    Sizes and step times are those that benchmarks/architectures.py measured on each backend; the accuracies those of
    recorded runs with `--epoch-steps`.
    """
    paths = sorted((PROJECT / "results" / "architectures").glob("*.json"))
    measured = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    if not measured:
        return "Not yet measured."
    budgets = {each["architecture"]: each for each in read_records(recipe) if "epoch_steps" in each["options"]}
    architectures: dict[str, dict[str, Any]] = {}
    for each in measured:
        architectures |= each["architectures"]
    steps = [f"step, {each['backend']}" for each in measured]
    names = ["architecture", "parameters", "published", "multiply-adds", "published", *steps]
    names += ["top-1 at the budget", "passes", "top-1 published", "published by"]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for name, facts in sorted(architectures.items(), key=lambda item: item[1]["multiply_adds"]):
        published = facts["published"]
        times = [each["architectures"].get(name, {}).get("milliseconds") for each in measured]
        cells = [
            name, millions(facts["parameters"] / 1e6), millions(published["parameters"]),
            millions(facts["multiply_adds"] / 1e6), millions(published["multiply_adds"]),
            *("–" if time is None else f"{time:.0f} ms" for time in times),
            *budget_cells(budgets.get(name)),
            "–" if published["top1"] is None else f"{published['top1'] / 100:.4f}", facts["source"],
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def millions(number: float | None) -> str:
    """A cell of a number in millions."""
    return "–" if number is None else f"{number:.5g} M"


def budget_cells(record: dict[str, Any] | None) -> list[str]:
    """Accuracy of a run at the budget, and over how many passes over the training images; dashes without one."""
    return ["–", "–"] if record is None else [f"{record['value']:.4f}", f"{record['passes']:.1f}"]
