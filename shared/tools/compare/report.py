"""The report of a comparison as a page that needs no network."""

import io
import re
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from shared.tools.compare.agreement import judge, judged_steps
from shared.tools.compare.summary import failed, layer_remark, measures_table, number_text, verdict

STARTING = {
    "import": "import_seconds",
    "data and model": "setup_seconds",
    "first step": "first_step_seconds",
}


COLORS = {"jax": "#3987d6", "torch": "#e2703a", "tensorflow": "#2c9c69"}


STARTING_COLORS = ["#8f8f8f", "#b09ad6", "#3987d6"]


def report_html(report: dict[str, Any]) -> str:
    """The report as one page, its figures inside."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    header, *lines = measures_table(report)
    figures = []
    if any(row["measures"] for row in report["rows"]):
        figures += [
            ("Start: until the end of the first step", plot_start(report["rows"])),
            ("Step: median, and 95th percentile", plot_steps(report["rows"])),
        ]
    loss = next((series for series in report["compared"] if series["name"] == "loss" and series["differences"]), None)
    if loss:
        figures += [
            ("Losses of the first steps", plot_losses(report["rows"])),
            ("Relative difference of the losses", plot_differences(loss)),
        ]
    return environment.get_template("report.html").render(
        report=report,
        header=header,
        lines=lines,
        verdict=verdict(report),
        good=judge(report["compared"])["agrees"] != "unexplained" and not failed(report),
        number_text=number_text,
        layer_remark=layer_remark,
        figures=[(title, jinja2.filters.Markup(svg_of(figure, title))) for title, figure in figures],
    )


def svg_of(figure: Figure, title: str) -> str:
    """A figure as SVG that takes the width it is given and the text colour of its page."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace("#000000", "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', "", text, count=1)
    return text.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)


def new_figure(rows: int) -> tuple[Figure, Any]:
    """A small figure, so that its text is readable on a phone, and its axes."""
    figure = Figure(figsize=(4.4, 1.3 + 0.32 * rows), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def plot_start(rows: list[dict[str, Any]]) -> Figure:
    """Bars of the time until the end of the first step, in its parts."""
    rows = [row for row in rows if "import_seconds" in row["measures"]]
    figure, axes = new_figure(len(rows))
    begin = [0.0] * len(rows)
    for (label, key), color in zip(STARTING.items(), STARTING_COLORS, strict=True):
        lengths = [row["measures"][key]["median"] for row in rows]
        axes.barh([row["name"] for row in rows], lengths, left=begin, color=color, label=label)
        begin = [a + b for a, b in zip(begin, lengths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=8, handlelength=1, columnspacing=1)
    return figure


def plot_steps(rows: list[dict[str, Any]]) -> Figure:
    """Bars of the median step, with a line to the 95th percentile."""
    rows = [row for row in rows if row["measures"]]
    figure, axes = new_figure(len(rows))
    for row in rows:
        median, slow = (1e3 * row["measures"][key]["median"] for key in ("median_step_seconds", "slow_step_seconds"))
        axes.barh(row["name"], median, color=COLORS[row["backend"]], alpha=0.5 if row["native"] else 1)
        axes.plot([median, slow], [row["name"]] * 2, "|-", color="black", linewidth=1)
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds a step")
    return figure


def plot_losses(rows: list[dict[str, Any]]) -> Figure:
    """The loss of each of the first steps, a line a backend."""
    figure, axes = new_figure(5)
    for row in rows:
        if row["losses"]:
            steps = range(1, len(row["losses"]) + 1)
            style = {"linestyle": "--", "alpha": 0.6} if row["native"] else {"linestyle": "-"}
            color = COLORS[row["backend"]]
            axes.plot(steps, row["losses"], marker="o", markersize=3, color=color, label=row["name"], **style)
    axes.set(xlabel="step", ylabel="loss")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, fontsize=8)
    return figure


def plot_differences(loss: dict[str, Any]) -> Figure:
    """The largest relative difference of the losses at each step, and that of a backend from itself, reordered."""
    figure, axes = new_figure(5)
    differences = np.max([pair["values"] for pair in loss["differences"]], axis=0)
    controls = np.max(list(loss["controls"].values()), axis=0)
    floor = 1e-9  # equal to the last bit, and not to be seen on a logarithmic axis
    axes.plot(loss["steps"], np.maximum(differences, floor), "o-", markersize=3, color="#3987d6", label="backends")
    axes.plot(loss["steps"], controls, "--", color="#8f8f8f", label="a backend from itself, reordered, so far")
    count = min(judged_steps(loss).values())
    if 0 < count < len(loss["steps"]):
        axes.axvline(
            loss["steps"][count - 1] + 0.5, color="#d64545", linestyle="--", linewidth=1, label="end of what is judged"
        )
    axes.legend(frameon=False, fontsize=8)
    axes.set(xlabel="step", ylabel="difference / largest loss", yscale="log")
    axes.xaxis.get_major_locator().set_params(integer=True)
    return figure
