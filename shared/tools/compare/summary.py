"""What a comparison found, in words and tables."""

import re
from typing import Any

from shared.tools.compare.agreement import judge, judged_steps, recorded_comparison

# Name in report.json, what it is called, how it is shown, and how many of its unit one is.
MEASURES = [
    ("import_seconds", "import", "{:.1f} s", 1),
    ("setup_seconds", "data and model", "{:.2f} s", 1),
    ("first_step_seconds", "first step (compile)", "{:.2f} s", 1),
    ("start_processor_seconds", "start, processor time", "{:.1f} s", 1),
    ("median_step_seconds", "step, median", "{:.1f} ms", 1e3),
    ("slow_step_seconds", "step, 95th percentile", "{:.1f} ms", 1e3),
    ("examples_per_second", "examples a second", "{:,.0f}", 1),
    ("data_fraction", "waiting for data", "{:.1f} %", 100),
    ("generated_tokens_per_second", "tokens written a second", "{:,.0f}", 1),
    ("generated_images_per_second", "images generated a second", "{:,.1f}", 1),
    ("training_memory_bytes", "memory of the steps", "{:.2f} GB", 1e-9),
    ("peak_memory_bytes", "peak memory", "{:.2f} GB", 1e-9),
    ("peak_device_memory_bytes", "peak device memory", "{:.2f} GB", 1e-9),
    ("model_bytes", "saved model", "{:.2f} MB", 1e-6),
    ("value", None, "{:.4f}", 1),
]


NATIVE_IS_ONE = {
    "median_step_seconds": "step",
    "generated_tokens_per_second": "tokens written a second",
    "generated_images_per_second": "images generated a second",
    "training_memory_bytes": "memory of the steps",
}
"""What a ratio to the native baseline is called, by the name of the measure."""


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
    for key, label in NATIVE_IS_ONE.items():
        ratios = [None if row["native"] else report["native"].get(row["backend"], {}).get(key) for row in rows]
        if any(ratios):
            table.append([f"{label}, native = 1", *(f"{ratio:.2f}" if ratio else "–" for ratio in ratios)])
    return table


LOOK_AT = {
    "initial weights": "the initializers",
    "loss": "the loss, masks and what the layers compute (--layers)",
    "moving statistics": "batch normalization and other averages",
}
"""Where the cause of a difference is likely to be, by the end of the name of the series; else at `LOOK_AT_UPDATES`."""


LOOK_AT_UPDATES = "the gradients, clipping and the settings of the optimizer"


def verdict(report: dict[str, Any]) -> str:
    """What the losses and updates of the first steps say, in a few sentences."""
    compared = recorded_comparison(report)
    found = judge(compared)
    if found["agrees"] is None:
        return "Agreement: not judged, because fewer than two ran."
    loss = next(series for series in compared if series["name"] == "loss")
    largest = max(value for pair in loss["differences"] for value in pair["values"])
    if report["precision"] != "float32":
        return (
            f"Agreement is judged in float32 only; in {report['precision']} the largest relative difference of the "
            f"losses is {largest:.1e}."
        )
    what = "losses and updates" if len(compared) > 1 else "losses"
    sentences = {
        "yes": [f"The {what} agree within rounding (reordering a batch on one backend moves the loss as far)."],
        "unexplained": [f"The {what} agree within the tolerance, but not within rounding."],
        "no": [f"The {what} DO NOT AGREE."],
    }[found["agrees"]]
    for row, moved in found["order"].items():
        sentences.append(
            f"The loss on {row} depends on the order of the examples: in another order, the first one differs by "
            f"{moved:.1e}."
        )
    sentences += [finding_text(finding) for finding in found["findings"]]
    sentences += judged_text(loss, found["judged"])
    sentences += updates_text([series for series in compared if series is not loss])
    return " ".join(sentences)


def finding_text(finding: dict[str, Any]) -> str:
    """What differs, in a sentence."""
    name, (one, other), step = finding["series"], finding["rows"], finding["step"]
    look_at = next((place for end, place in LOOK_AT.items() if name.endswith(end)), LOOK_AT_UPDATES)
    if name == "loss":
        what = f"the losses from step {step} on"
        if step > 1:
            look_at = LOOK_AT_UPDATES
    elif name == "initial weights":
        what = "the initial weights drawn from the same seed"
    else:
        what = f"the size of the updates of the {name} from step {step} on"
    return (
        f"{one} differs from {other} in {what} by up to {finding['difference']:.1e}, {finding['ratio']:,.0f} times "
        f"what reordering explains: look at {look_at}."
    )


def judged_text(loss: dict[str, Any], judged: dict[str, int]) -> list[str]:
    """Over how many steps the losses were judged, how far they differed there, and what ended it, as sentences."""
    count, total = min(judged.values()), len(loss["steps"])
    if not count:
        return ["Nothing beyond the first loss was judged."]
    differences = [max(pair["values"][step] for pair in loss["differences"]) for step in range(count)]
    controls = [max(control[step] for control in loss["controls"].values()) for step in range(total)]
    steps = f"all {total} steps" if count == total else f"the first {count} of {total} steps"
    text = (
        f"Judged over {steps}: largest relative difference of the losses {max(differences):.1e}, of a backend from "
        f"itself, reordered, {max(controls[:count]):.1e}."
    )
    return (
        [text] if count == total else [text, f"Beyond, reordering alone moves the loss by up to {max(controls):.1e}."]
    )


def updates_text(updates: list[dict[str, Any]]) -> list[str]:
    """Until which step the updates were judged, where that is not the last, as a sentence."""
    ends = []
    for series in updates:
        count = min(judged_steps(series).values())
        if count < len(series["steps"]):
            ends.append(f"{series['name']} {[0, *series['steps']][count]}")
    return [f"Updates were judged up to step: {', '.join(ends)}."] if ends else []


def comparison_markdown(report: dict[str, Any]) -> str:
    """The table of a report and its verdict, in Markdown."""
    header, *lines = measures_table(report)
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(["\n".join(f"| {' | '.join(row)} |" for row in rows), "", verdict(report)])


def failed(report: dict[str, Any]) -> bool:
    """Whether something did not run, or the losses and updates do not agree."""
    disagree = judge(recorded_comparison(report))["agrees"] == "no" and report["precision"] == "float32"
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
        numbers = " ".join(f"{number_text(row[key]):>8}" for key in ("in_place", "forward", "gradient"))
        lines.append(f"{name:<{width}}  {row['backend']:<12} {numbers}  {layer_remark(row)}".rstrip())
    return lines


def number_text(number: float | None) -> str:
    """A relative difference; a dash where there is none."""
    return "–" if number is None else f"{number:.1e}"


def layer_remark(row: dict[str, Any]) -> str:
    """What is to be said of a layer beside its numbers; nothing where all of it was compared and agrees."""
    if row["agrees"] is False:
        return f"<- differs ({row['gradient_of']})"
    return f"not compared: {row['not_compared']}" if row["not_compared"] else ""
