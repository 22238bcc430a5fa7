"""Records of exported models, and the tables of them."""

import json
from pathlib import Path

from shared.errors import UsageError
from shared.files import replacing
from shared.tools.project import PROJECT, recipe_paths

MEASURED = PROJECT / "results" / "exports"
BATCHED = PROJECT / "results" / "batching"
SERVED = PROJECT / "results" / "serving"
NAMED = ("recipe", "preset", "data", "metric", "format", "int8", "raw")
"""What a record says of the run and of the format."""


def record_export(path: Path) -> Path:
    """Copies what was measured of an exported model to results/exports/; returns the path of the record.

    Args:
        path: of the model.json that `recipes export` wrote.

    Raises:
        UsageError: it is anything else.
    """
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        record = {name: facts[name] for name in NAMED} | facts["checked"]
        kind = "-".join([record["format"], *(name for name in ("int8", "raw") if record[name])])
        place = MEASURED / f"{record['recipe']}-{kind}.json"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} describes no exported model ({error}): run  recipes export  first") from None
    place.parent.mkdir(parents=True, exist_ok=True)
    with replacing(place) as unfinished:
        unfinished.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return place


def exports_table() -> str:
    """The recorded exports by recipe and format, in Markdown."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(MEASURED.glob("*.json"))]
    rows = [
        "| recipe | model of | format | largest difference | size | one input | by `model(x)` | by `predict` | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for recipe in recipe_paths():
        for record in (each for each in records if each["recipe"] == recipe.stem):
            kind = " ".join([record["format"], *(name for name in ("int8", "raw") if record[name])])
            times = [f"{record['milliseconds'][name]:.2f} ms" for name in ("exported", "model(x)", "predict")]
            metric = ""
            if record["int8"]:
                before, after = record["metric_before"], record["metric_after"]
                metric = f"{record['metric']} {after:.4f}, {before:.4f} before"
            cells = [
                recipe.stem, f"{record['preset']}, {record['data']}", kind, f"{record['largest_difference']:.1e}",
                f"{record['bytes'] / 1e6:.2f} MB", times[0], *times[1:], metric,
            ]  # fmt: skip
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def batches_table() -> str:
    """The processor time per input by batch size, as benchmarks/batching.py records it, in Markdown."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(BATCHED.glob("*.json"))]
    shown: set[str] = set()
    rows = ["| recipe | model of | by | batch of 1 | 2 | 4 | 8 |", "|---|---|---|---|---|---|---|"]
    for record in records:
        for engine, times in record["milliseconds"].items():
            if engine == "onnx" and record["recipe"] in shown:  # the same beside each backend
                continue
            shown.add(record["recipe"])
            by = "ONNX Runtime" if engine == "onnx" else f"Keras, {record['backend']}"
            cells = [record["recipe"], record["preset"], by, *(f"{least:.2f} ms" for least in times.values())]
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def servers_table() -> str:
    """What servers do under load, as benchmarks/serving.py records it, in Markdown."""
    rows = [
        "| recipe | model of | by | requests per second | median | 95th percentile | processor time | memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for path in sorted(SERVED.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        for row in record["rows"]:
            by = "ONNX Runtime" if row["engine"] == "onnx" else f"Keras, {row['backend']}"
            cells = [
                record["recipe"], record["preset"], by, f"{row['requests_per_second']:.0f}",
                *(f"{row[name]:.1f} ms" for name in ("p50_milliseconds", "p95_milliseconds", "processor_milliseconds")),
                f"{row['megabytes']} MB",
            ]  # fmt: skip
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)
