"""Recorded results, and the tables that are made of them."""

import hashlib
import json
import re
import shlex
import statistics
from pathlib import Path
from typing import Any

from shared.backends.choice import BACKENDS
from shared.errors import UsageError
from shared.files import replacing
from shared.foundations.sweep_table import sweep_markdown
from shared.tools.project import PROJECT


def read_records(recipe: str) -> list[dict[str, Any]]:
    """The recorded results of a recipe, by preset, data and backend."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in (PROJECT / "results" / recipe).glob("*.json")]
    order = ("test", "smoke", "small", "full")

    def sort_key(record: dict[str, Any]) -> tuple:
        options = sorted(record.get("options", {}).items())
        return order.index(record["preset"]), record["data"], options, record["backend"], record["seed"]

    return sorted(records, key=sort_key)


def is_preset(record: dict[str, Any]) -> bool:
    """Whether a record has exactly the options of its preset, on any data."""
    return not record.get("options")  # records up to November 2026, all of presets, lack this field


def on_own_data(record: dict[str, Any]) -> bool:
    """Whether a record uses the data of its preset."""
    return "--data" not in command_options(record["command"])


def headline_records(recipe: str) -> list[dict[str, Any]]:
    """Headline records of a recipe: preset `small` on its own data, fastest first."""
    records = [record for record in read_records(recipe) if record["preset"] == "small" and is_preset(record)]
    own = [record for record in records if on_own_data(record)]
    return sorted(own or records, key=lambda record: record["train_seconds"])


def result_and_time(records: list[dict[str, Any]]) -> tuple[str, str]:
    """Two table cells: range of the result, and range of the training time on each backend."""

    def ends(numbers: list[float], digits: int) -> str:
        texts = [f"{number:.{digits}f}" for number in (min(numbers), max(numbers))]
        return "–".join(dict.fromkeys(texts))

    minutes: dict[str, list[float]] = {}
    for record in sorted(records, key=lambda record: record["train_seconds"]):
        minutes.setdefault(record["backend"], []).append(record["train_seconds"] / 60)
    result = f"{records[0]['metric']} {ends([record['value'] for record in records], 4)}"
    return result, ", ".join(f"{ends(times, 0)} min {backend}" for backend, times in minutes.items())


def record_comparison(directory: Path) -> Path:
    """Copies the report of a comparison to results/comparisons/.

    Returns:
        The path of the record.

    Raises:
        UsageError: the report cannot be read, is incomplete, or its code was not committed.
    """
    try:
        report = json.loads((directory / "report.json").read_text(encoding="utf-8"))
        path = PROJECT / "results" / "comparisons" / f"{report['recipe']}.json"
        whole = not report["interrupted"] and not any(row["problem"] for row in report["rows"])
        commit = report["commit"]
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{directory} holds no report ({error}): run  recipes compare  to its end first") from None
    if not whole:
        raise UsageError(f"{directory} is the report of a comparison that did not run to its end: run it again")
    check_committed(directory, commit)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        unfinished.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return path


def check_committed(directory: Path, commit: str | None) -> None:
    """Raises a UsageError unless the code of a run was committed."""
    if not commit or commit.endswith("-dirty"):
        raise UsageError(f"{directory} was run with code that is not committed: commit, run again, then record")


def record_run(directory: Path) -> Path:
    """Copies the result of a run, with its command, commit and machine, to results/.

    Returns:
        The path of the record.

    Raises:
        UsageError: there is no finished run in the directory, its code was not committed or changed before it
            finished, or it was resumed with other options than those of its command.
    """
    try:
        result = json.loads((directory / "result.json").read_text(encoding="utf-8"))
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        facts = {name: config[name] for name in ("command", "commit", "machine")}
        path = PROJECT / "results" / result["recipe"] / f"{record_name(result)}.json"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{directory} holds no finished run ({error}): run the recipe to its end first") from None
    check_committed(directory, facts["commit"])
    if commits := result.get("commits"):
        raise UsageError(f"{directory} was trained by the code of {' and of '.join(map(str, commits))}: run it anew")
    if changed := result.get("changed_on_resume"):
        options = ", ".join(f"--{name.replace('_', '-')} {value}" for name, value in changed.items())
        raise UsageError(
            f"{directory} was finished with {options}, which its command does not say: "
            "resume it with --resume and no other option, or run it anew"
        )
    facts["command"] = public_command(facts["command"])
    record = {name: public_path(value) if isinstance(value, str) else value for name, value in result.items()} | facts
    record.pop("out", None)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        unfinished.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return path


def record_name(result: dict[str, Any]) -> str:
    """Name of a record: preset, data, backend, seed, and options that differ from the preset's.

    A name too long for a file system ends with a hash.
    """
    options = (f"{name}-{value.strip('()')}" for name, value in sorted(result.get("options", {}).items()))
    words = [*(str(result[key]) for key in ("preset", "data", "backend", "seed")), *options]
    name = re.sub(r"[^\w.-]+", "-", "-".join(words)).strip("-")
    return name if len(name) <= 120 else f"{name[:103]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def shown_number(value: float) -> str:
    """A measured number with four decimals, or in powers of ten where these would all be 0."""
    return f"{value:.1e}" if 0 < abs(value) < 5e-5 else f"{value:.4f}"


def measured_number(value: float | None, form: str) -> str:
    """A number in a format, such as ",.0f"; a dash where a run that was resumed at its end did not measure it."""
    return "–" if value is None else format(value, form)


def results_table(recipe: str) -> str:
    """The recorded results of one recipe, in Markdown, with the command of each: those of presets, then the others."""
    records = read_records(recipe)
    heading = [
        "| data | backend | result | training | examples/s | start | peak memory | machine | command |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    rows = [result_row(record) for record in records if is_preset(record)]
    others = [result_row(record) for record in records if not is_preset(record)]
    measured = {(each["preset"], each["backend"]) for each in records if is_preset(each) and on_own_data(each)}
    missing = [("small", backend) for backend in BACKENDS if ("small", backend) not in measured]
    if not any(preset == "full" for preset, _ in measured):
        missing.append(("full", "jax"))
    for preset, backend in missing:
        command = f"KERAS_BACKEND={backend} python recipes/{recipe}.py --preset {preset}"
        rows.append(f"| | {backend} | not yet measured | | | | | | `{command}` |")
    with_options = ["", "With other options:", "", *heading, *others] if others else []
    return "\n".join([*heading, *rows, *with_options])


def result_row(record: dict[str, Any]) -> str:
    """The line of one record in the table of results."""
    cells = [
        record["data"],
        f"{record['backend']} {record['versions'][record['backend']]}",
        ", ".join(f"{name} {shown_number(record['metrics'][name])}" for name in by_headline(record)),
        f"{record['train_seconds'] / 60:.1f} min",
        measured_number(record["examples_per_second"], ",.0f"),
        f"{measured_number(record['start_seconds'], '.0f')} s",
        f"{record['peak_memory_bytes'] / 1e9:.2f} GB",
        record["machine"],
        f"`{public_command(record['command'])}`",
    ]
    return f"| {' | '.join(cells)} |"


def side_by_side_table(recipes: str) -> str:
    """Results of several recipes with the preset small on the same data, the best first, for the page of a recipe.

    Args:
        recipes: their names, separated by blanks; the first says the data, the metric and the backends.
    """
    names = recipes.split()
    records = [(name, each) for name in names for each in read_records(name) if each["preset"] == "small"]
    if not records or records[0][0] != names[0]:
        return "Not yet measured."
    first = records[0][1]
    backends = {each["backend"] for name, each in records if name == names[0] and each["data"] == first["data"]}
    lines = [
        f"| recipe | options | backend | parameters | epochs | training | {first['metric']} |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, each in sorted(records, key=lambda pair: -pair[1]["value"]):
        if (each["data"], each["metric"]) == (first["data"], first["metric"]) and each["backend"] in backends:
            options = [f"--{option.replace('_', '-')} {value}" for option, value in each.get("options", {}).items()]
            cells = [
                f"[{name}](../{name}/README.md)",
                f"`{' '.join(options)}`" if options else "",
                each["backend"],
                f"{each['parameters']:,}",
                str(each["epochs"]),
                f"{each['train_seconds'] / 60:.1f} min",
                shown_number(each["value"]),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def steps_table() -> str:
    """Step times measured by benchmarks/custom_step.py on each backend, in Markdown."""
    directory = PROJECT / "results" / "custom_step"
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(directory.glob("*.json"))]
    if not records:
        return "Not yet measured."
    ways = dict.fromkeys(way for record in records for way in record["milliseconds"])
    lines = [f"| | {' | '.join(record['backend'] for record in records)} |", "|---" * (len(records) + 1) + "|"]
    for way in ways:
        cells = [record["milliseconds"].get(way) for record in records]
        lines.append(f"| {way} | {' | '.join('–' if cell is None else f'{cell:.2f} ms' for cell in cells)} |")
    return "\n".join(lines)


def convolutions_table() -> str:
    """Multiply-adds a second of convolutions, measured by benchmarks/convolutions.py on each backend, in Markdown."""
    directory = PROJECT / "results" / "convolutions"
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(directory.glob("*.json"))]
    if not records:
        return "Not yet measured."
    measured = [(record["backend"], record["billions_per_second"]) for record in records]
    names = [f"{backend}, {way}" for backend, shapes in measured for way in next(iter(shapes.values()))]
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for shape in measured[0][1]:
        cells = [f"{rate:.1f}" for _, shapes in measured for rate in shapes[shape].values()]
        lines.append(f"| {' | '.join([shape, *cells])} |")
    return "\n".join(lines)


def by_headline(record: dict[str, Any]) -> list[str]:
    """Names of a record's metrics, the headline first, without those that `bounds_table` and `sweeps_table` show."""
    names = [name for name in record["metrics"] if not name.endswith(("_real", "_untrained"))]
    if "sweep" in record:
        names = [name for name in names if not name.startswith(f"{record['metric']}_")]
    return sorted(names, key=lambda name: (name != record["metric"], name))


def bounds_table(recipe: str) -> str:
    """Metrics of generated images between those of real images and of an untrained network, in Markdown.

    Several runs on the same data are followed by their mean and standard deviation.
    """
    records = [record for record in read_records(recipe) if record["preset"] == "small" and is_preset(record)]
    if not records:
        return "Not yet measured."
    first = records[0]["metrics"]
    names = [name for name in by_headline(records[0]) if f"{name}_real" in first and f"{name}_untrained" in first]
    rows = [("training images", [first[f"{name}_real"] for name in names])]
    runs = [
        (f"{each['data']}, {each['backend']}, seed {each['seed']}", [each["metrics"][name] for name in names])
        for each in records
    ]
    rows += runs
    if len(runs) > 1 and len({each["data"] for each in records}) == 1:
        columns = list(zip(*(values for _, values in runs), strict=True))
        rows += [(f"mean of these {len(runs)} runs", [statistics.mean(column) for column in columns])]
        rows += [("their standard deviation", [statistics.stdev(column) for column in columns])]
    rows += [(f"untrained, {records[0]['backend']}", [first[f"{name}_untrained"] for name in names])]
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    return "\n".join(lines + [f"| {row} | {' | '.join(f'{x:.4f}' for x in values)} |" for row, values in rows])


def sweeps_table(recipe: str) -> str:
    """What each technique came to in the recorded sweeps of a recipe, in Markdown, a table a record."""
    tables = []
    for record in read_records(recipe):
        if "sweep" in record:
            where = f"{record['data']}, {record['backend']}"
            options = [f"{name} {value}" for name, value in record["options"].items() if name != "vary"]
            title = ", ".join([f"**{record['vary'].capitalize()}**: {where}", *options])
            tables.append(f"{title}\n\n{sweep_markdown(record['sweep'], record['vary'])}")
    return "\n\n".join(tables) or "Not yet measured."


def public_command(command: str) -> str:
    """The command of a record without personal directories."""
    words = iter(with_values_apart(command))
    kept = []
    for word in words:
        if word in ("--out", "--data-dir"):
            next(words, None)
        else:
            kept.append(public_path(word))
    return shlex.join(kept)


def with_values_apart(command: str) -> list[str]:
    """The words of a command, with --OPTION=VALUE split in two."""
    split = (word.split("=", 1) if word.startswith("--") else [word] for word in shlex.split(command))
    return [word.replace("_", "-") if word.startswith("--") else word for words in split for word in words]


def command_options(command: str) -> set[str]:
    """The options that a command names, such as "--data"."""
    return {word for word in with_values_apart(command) if word.startswith("--")}


def public_path(word: str) -> str:
    """An absolute or home path relative to the project, or its last name alone; any other word unchanged."""
    if not word.startswith(("/", "~")) and not Path(word).is_absolute():
        return word
    path = Path(word)
    return path.relative_to(PROJECT).as_posix() if path.is_relative_to(PROJECT) else path.name
