"""How far the same experiment differs from one backend to another. NumPy only."""

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

LAYER_TOLERANCE = 1e-4
"""Largest difference of one layer, forward or back, that is taken for rounding. In batch normalization TensorFlow, and
PyTorch's fused kernel, add the numbers of a batch one after the other, which is off by up to 3e-5, and by 2e-4 where a
channel has 200,000 of them; JAX is off by 1e-6."""


ROUNDING = 2.0**-22
"""Relative difference that is always taken for rounding: that of two float32 numbers two places apart."""


LAYER_GROUPS = ("in place", "forward", "gradient")
"""What is compared of each layer: its output in the model, and by itself its output and its gradients."""


EXPLAINED = 10
"""How many times farther apart than a backend from itself, its batches reordered, two backends may be."""


class Bounds(NamedTuple):
    """Relative differences that a verdict depends on."""

    smallest_control: float
    """Always taken for rounding."""
    tolerance: float
    """Above it, a difference that reordering does not explain is a disagreement."""
    largest_control: float
    """Where reordering alone moves a backend farther than this, nothing is judged any more: rounding is no longer well
    below what a real difference would show."""


LOSS_BOUNDS = Bounds(ROUNDING, tolerance=1e-4, largest_control=1e-3)


UPDATE_BOUNDS = Bounds(1e-4, tolerance=1e-2, largest_control=1e-2)


def bounds_of(name: str) -> Bounds:
    """The bounds for a series of this name."""
    return LOSS_BOUNDS if name == "loss" else UPDATE_BOUNDS


def compare_courses(
    courses: dict[str, dict[str, Any]], reordered: dict[str, list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Lays the courses of one training on several backends over each other.

    Training amplifies rounding: with batch normalization and a high learning rate up to tenfold every two or three
    steps. How far a backend parts from itself when nothing but rounding is changed shows by how much.

    Args:
        courses: of each backend, what `training_course` returned; all from the same weights and batches.
        reordered: of each backend some further ones, or none, with the examples of each batch in other orders, and from
            weights a last place away.

    Returns:
        For the losses, and each kind of variable of which something moved: its `name` and `steps`; `differences`, for
        each pair of `rows` at each step, that of their nearest runs, reordered or not, because at a kink of an
        activation rounding may send any run another way; and `controls`, for each row the largest difference so far of
        a reordered run, and at least what is always taken for rounding. All are relative to the largest of the
        backends; infinite where only one of two is a number.
    """
    found = []
    for name in dict.fromkeys(name for course in courses.values() for name in course):
        rows = {row: course[name] for row, course in courses.items() if name in course}
        runs = {
            row: np.array(
                [course[name]["values"] for course in (courses[row], *reordered.get(row, ())) if name in course]
            )
            for row in rows
        }
        lengths = np.linalg.norm([own for own, *_ in runs.values()], axis=2)
        if name != "loss" and not lengths.any():
            continue
        scale = np.max(np.where(np.isfinite(lengths), lengths, 0), axis=0)
        scale = np.where(scale > 0, scale, 1)
        controls = {}
        for row, (own, *others) in runs.items():
            apart = np.max([distances(own, other) for other in (own, *others)], axis=0)
            # What is rounded points in all directions, and adds the square of its relative size to that of an update.
            rounded = np.square(ROUNDING * np.nan_to_num(rows[row]["sizes"]) / scale)
            control = np.maximum(np.maximum.accumulate(apart) / scale, bounds_of(name).smallest_control)
            controls[row] = np.maximum(control, rounded).tolist()
        differences = []
        for one, other in itertools.combinations(rows, 2):
            nearest = np.min([distances(a, b) for a, b in itertools.product(runs[one], runs[other])], axis=0)
            differences.append({"rows": [one, other], "values": (nearest / scale).tolist()})
        steps = next(iter(rows.values()))["steps"]
        found.append({"name": name, "steps": steps, "differences": differences, "controls": controls})
    return found


def distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The norm of the difference of each two rows, shape (steps,); infinite where only one of them is finite."""
    finite = np.isfinite(one).all(axis=1), np.isfinite(other).all(axis=1)
    found = np.linalg.norm(np.nan_to_num(one) - np.nan_to_num(other), axis=1)
    return np.where(finite[0] & finite[1], found, np.where(finite[0] | finite[1], np.inf, 0))


def recorded_comparison(report: dict[str, Any]) -> list[dict[str, Any]]:
    """What `compare_courses` returned for a report; of the losses alone, from older records, which hold no more.

    Their control is the largest of all backends.
    """
    if "compared" in report:
        return report["compared"]
    courses = {
        row["name"]: {"loss": {"steps": list(range(1, len(row["losses"]) + 1)), "values": [[x] for x in row["losses"]],
                               "sizes": row["losses"]}}
        for row in report["rows"] if row["losses"]
    }  # fmt: skip
    compared = compare_courses(courses, {})
    for series in compared:
        largest = np.maximum.accumulate(report["agreement"]["reordered"])
        series["controls"] = {row: np.maximum(largest, control).tolist() for row, control in series["controls"].items()}
    return compared


def judge(compared: list[dict[str, Any]]) -> dict[str, Any]:
    """Judges what `compare_courses` returned.

    Returns:
        `agrees`: None where there is nothing to compare; "no" where a difference is above the tolerance and at least
        `EXPLAINED` times the larger control of its two backends, or where a loss depends on the order of the examples;
        "unexplained" where such differences are all within the tolerance; else "yes".
        `judged`: of each backend, over how many of the first losses, before reordering alone moves it too far.
        `findings`: for each `series` that differs by more than reordering explains: two `rows`, the one that differs
        from most of the others first; from which `step` on, the largest `difference`, the largest `ratio` to the
        control, and whether that alone `disagrees`.
        `order`: for each backend whose first loss depends on the order of the examples, by how much.
    """
    loss = next((series for series in compared if series["name"] == "loss"), None)
    if loss is None or not loss["differences"]:
        return {"agrees": None, "judged": {}, "findings": [], "order": {}}
    order = {row: control[0] for row, control in loss["controls"].items() if control[0] > LOSS_BOUNDS.largest_control}
    findings, disagrees = [], bool(order)
    for series in compared:
        found = exceeding(series)
        disagrees |= any(each["disagrees"] for each in found)
        if found:
            counts = Counter(row for each in found for row in each["rows"])
            odd = max(counts, key=counts.get)
            worst = max((each for each in found if odd in each["rows"]), key=lambda each: each["ratio"])
            rows = sorted(worst["rows"], key=lambda row: row != odd)
            findings.append({"series": series["name"]} | worst | {"rows": rows})
    agrees = "no" if disagrees else "unexplained" if findings else "yes"
    return {"agrees": agrees, "judged": judged_steps(loss), "findings": findings, "order": order}


def exceeding(series: dict[str, Any]) -> list[dict[str, Any]]:
    """The pairs of backends that differ by more than reordering explains; see `judge`."""
    found, counts = [], judged_steps(series)
    for pair in series["differences"]:
        count = min(counts[row] for row in pair["rows"])
        differences = np.array(pair["values"][:count])
        ratios = differences / np.max([series["controls"][row][:count] for row in pair["rows"]], axis=0)
        beyond = np.flatnonzero(ratios >= EXPLAINED)
        if len(beyond):
            found.append({
                "rows": pair["rows"],
                "step": series["steps"][beyond[0]],
                "difference": float(differences[beyond].max()),
                "ratio": float(ratios.max()),
                "disagrees": bool(differences[beyond].max() > bounds_of(series["name"]).tolerance),
            })  # fmt: skip
    return found


def judged_steps(series: dict[str, Any]) -> dict[str, int]:
    """Over how many of the first steps each backend is judged: until reordering alone moves it too far."""
    largest = bounds_of(series["name"]).largest_control
    return {
        row: next((i for i, control in enumerate(controls) if control > largest), len(controls))
        for row, controls in series["controls"].items()
    }


def relative_difference(array: np.ndarray, reference: np.ndarray) -> float:
    """The largest difference of two arrays over the largest entry of the reference; NaN or another shape: infinite."""
    if array.shape != reference.shape:
        return float("inf")
    if not array.size:
        return 0.0
    scale = np.abs(reference.astype(np.float64)).max()
    difference = np.abs(array.astype(np.float64) - reference).max() / (scale if scale > 0 else 1)
    return float(difference) if np.isfinite(difference) else float("inf")


def compare_layers(directories: dict[str, Path]) -> list[dict[str, Any]]:
    """Compares the layers.npz of several backends with that of the first.

    Returns:
        For each layer and further backend: the largest difference of its output in the model, where differences of
        earlier layers add up; of its output by itself, from the same inputs; of a gradient by itself, and which; each
        None where there is none; whether those by themselves are below `LAYER_TOLERANCE`, None where not all of them
        were compared; and why not.
    """
    (first, directory), *others = directories.items()
    reference, reference_facts = read_layers(directory)
    rows = []
    for name, directory in others:
        arrays, facts = read_layers(directory)
        for key, kind in (reference_facts["kinds"] | facts["kinds"]).items():
            found = {group: compare_entries(arrays, reference, f"{key}|{group}|") for group in LAYER_GROUPS}
            reasons = {
                backend: each["missing"].get(key, "" if key in each["kinds"] else "is not in the model")
                for backend, each in ((first, reference_facts), (name, facts))
            }
            not_compared = "; ".join(f"{reason} on {backend}" for backend, reason in reasons.items() if reason)
            for group, (_, _, alone) in found.items():
                if group == "forward" and found[group][0] is None and not alone and not not_compared:
                    not_compared = "has no outputs"
                if alone and not not_compared:
                    not_compared = f"{group} of {', '.join(alone)} only on one of {first} and {name}"
            by_itself = [found[group][0] for group in ("forward", "gradient") if found[group][0] is not None]
            rows.append({
                "layer": key.partition(" ")[2],
                "kind": kind,
                "backend": name,
                "reference": first,
                "in_place": found["in place"][0],
                "forward": found["forward"][0],
                "gradient": found["gradient"][0],
                "gradient_of": found["gradient"][1].partition(" ")[2],
                "agrees": False if max(by_itself, default=0) > LAYER_TOLERANCE else None if not_compared else True,
                "not_compared": not_compared,
            })  # fmt: skip
    return rows


def read_layers(directory: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a layers.npz, by "place name|group|entry", and its facts."""
    with np.load(directory / "layers.npz", allow_pickle=False) as archive:
        arrays = dict(archive)
    return arrays, json.loads(str(arrays.pop("facts")))


def compare_entries(
    arrays: dict[str, np.ndarray], reference: dict[str, np.ndarray], prefix: str
) -> tuple[float | None, str, list[str]]:
    """The largest difference of the entries whose names begin with `prefix`, None where none is in both; that entry's
    name without the prefix; and the names of the entries that only one of both has."""
    entries = {name for name in (*arrays, *reference) if name.startswith(prefix)}
    both = [name for name in entries if name in arrays and name in reference]
    differences = [(relative_difference(arrays[name], reference[name]), name.removeprefix(prefix)) for name in both]
    alone = sorted(name.removeprefix(prefix) for name in entries.difference(both))
    return (*max(differences, default=(None, "")), alone)
