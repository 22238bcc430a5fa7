"""What a comparison found, in words and tables."""

import re
from typing import Any

# Name in report.json, what it is called, how it is shown, and how many of its unit one is.
MEASURES = [
    ("import_seconds", "import", "{:.1f} s", 1),
    ("data_seconds", "data", "{:.2f} s", 1),
    ("build_seconds", "build", "{:.2f} s", 1),
    ("first_step_seconds", "first step (compile)", "{:.2f} s", 1),
    ("median_step_seconds", "step, median", "{:.1f} ms", 1e3),
    ("slow_step_seconds", "step, 95th percentile", "{:.1f} ms", 1e3),
    ("examples_per_second", "examples a second", "{:,.0f}", 1),
    ("data_share", "waiting for data", "{:.1f} %", 100),
    ("generated_tokens_per_second", "tokens written a second", "{:,.0f}", 1),
    ("peak_memory_bytes", "peak memory", "{:.2f} GB", 1e-9),
    ("peak_device_memory_bytes", "peak device memory", "{:.2f} GB", 1e-9),
    ("model_bytes", "saved model", "{:.2f} MB", 1e-6),
    ("value", None, "{:.4f}", 1),
]


def measures_table(report: dict[str, Any]) -> list[list[str]]:
    """The table of a report: a header, then a line for each measure: its name, and for each row of the report the
    median, with the lowest and highest where they differ."""
    rows = report["rows"]
    metric = next((row["metric"] for row in rows if row.get("metric")), "metric")
    table = [["", *(row["name"] for row in rows)]]
    for key, label, form, unit in MEASURES:
        cells = []
        for row in rows:
            found = row["measures"].get(key)
            cells.append(form.format(found["median"] * unit) if found else "–")
            if found and found["lowest"] < found["highest"]:
                number = re.sub(r" .*", "", form)
                cells[-1] += f" ({number.format(found['lowest'] * unit)}–{number.format(found['highest'] * unit)})"
        if set(cells) != {"–"}:
            table.append([label or metric, *cells])
    if report["by_hand"]:
        ratios = ["" if row["by_hand"] else report["by_hand"].get(row["backend"]) for row in rows]
        table.append(["step, by hand = 1", *(f"{ratio:.2f}" if ratio else "–" for ratio in ratios)])
    return table


def verdict(report: dict[str, Any]) -> str:
    """What the loss curves say, in a sentence or two."""
    found = report["agreement"]
    if found["agrees"] is None:
        return "Agreement: not judged, because fewer than two ran."
    judged = {
        "yes": "The losses AGREE",
        "rounding": "The losses AGREE AS FAR AS ROUNDING LETS THEM",
        "no": "The losses DO NOT AGREE",
    }[found["agrees"]]
    if report["precision"] != "float32":
        judged = f"Agreement is judged in float32 only; in {report['precision']}"
    drift = f"drift begins at step {found['drift']}" if found["drift"] else "no drift"
    return (
        f"{judged}: largest relative difference {found['largest']:.1e}, at step {found['step']} of "
        f"{len(found['differences'])}; tolerance {found['tolerance']:.0e}; {drift} (first step above a tenth of that). "
        f"A backend from itself, the examples of its batches in another order: up to {found['largest_reordered']:.1e}."
    )


def comparison_markdown(report: dict[str, Any]) -> str:
    """The table of a report and its verdict, in Markdown."""
    header, *lines = measures_table(report)
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(["\n".join(f"| {' | '.join(row)} |" for row in rows), "", verdict(report)])


def failed(report: dict[str, Any]) -> bool:
    """Whether something did not run, or the curves do not agree."""
    disagree = report["agreement"]["agrees"] == "no" and report["precision"] == "float32"
    return disagree or any(row["problem"] for row in report["rows"])


def report_text(report: dict[str, Any]) -> str:
    """The report for a terminal."""
    table = measures_table(report)
    lines = []
    if len(table) > 1:
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
        ]
        lines.append("")
    lines.append(verdict(report))
    lines += [f"{row['name']}: FAILED: {row['problem']}" for row in report["rows"] if row["problem"]]
    if report["layers"]:
        lines += ["", *layers_text(report["layers"])]
    if report["interrupted"]:
        lines.append("Interrupted: this is what was measured until then.")
    return "\n".join(lines)


def layers_text(layers: list[dict[str, Any]]) -> list[str]:
    """A line for each layer, those that differ by more than rounding marked."""
    width = max(len(row["layer"]) + len(row["kind"]) + 3 for row in layers)
    lines = [f"{'layer':<{width}}  {'backend':<12} in place  forward  gradient"]
    for row in layers:
        name = f"{row['layer']} ({row['kind']})"
        mark = "" if row["agrees"] else f"  <- differs ({row['gradient_of']})"
        lines.append(
            f"{name:<{width}}  {row['backend']:<12} {row['in_place']:8.1e} {row['forward']:8.1e} "
            f"{row['gradient']:8.1e}{mark}"
        )
    return lines
