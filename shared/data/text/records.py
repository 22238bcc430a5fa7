"""Records in text files (JSON, CSV, tab-separated values, …), with the format detected from the content."""

import csv
import functools
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from shared.data.encoding import read_text
from shared.data.places import PassedOver
from shared.errors import UsageError

MOST_UNREADABLE = 0.1
"""Maximum fraction of invalid records in a file; with more, another format is assumed."""


FIELD_NAMES = """
source src target tgt trg sentence text original translation translated question answer q a query response reply prompt
completion instruction input output context user assistant bot human turn message utterance id line conversation conv
dialogue dialog speaker
"""
"""Usual column names of texts, beside the names of languages."""


class TextRecord(NamedTuple):
    """A JSON value, a list of cells, or cells by column name, and its first line number."""

    line: int
    value: Any
    problem: str = ""
    """Error message if the line could not be read."""


class RecordFormat(NamedTuple):
    """A format of text files."""

    name: str
    read: Callable[[str], list[TextRecord] | None]
    """Function from a text to its records, at least one of them readable; None if it is in another format."""


class RecordFile(NamedTuple):
    """Format and records of a text file."""

    format: str
    records: list[TextRecord]


def read_json(content: str) -> list[TextRecord] | None:
    """One JSON value: its records are the items of a list, or of an object's longest list, or an object's values."""
    try:
        whole = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if isinstance(whole, dict):
        nested = [each for each in whole.values() if isinstance(each, dict | list)]
        lists = [each for each in nested if holds_records(each)]
        whole = max(lists, key=len) if lists else nested or [whole]
    elif not isinstance(whole, list):
        return None
    return [TextRecord(1, item) for item in (whole if holds_records(whole) else [whole])]


def holds_records(value: Any) -> bool:
    """Whether a value of JSON is a list of lists or objects, other than the messages of one conversation."""
    if not isinstance(value, list) or not value or not all(isinstance(item, dict | list) for item in value):
        return False
    return not all(isinstance(item, dict) and {"role", "from"} & item.keys() for item in value)


def read_json_lines(content: str) -> list[TextRecord] | None:
    """JSON lines: one JSON value per line."""
    records, found = [], 0
    for number, line in numbered_lines(content):
        try:
            value = json.loads(line)
            records.append(TextRecord(number, value))
            found += isinstance(value, dict | list)
        except (ValueError, RecursionError) as error:
            records.append(TextRecord(number, None, f"no JSON: {error}"))
    return records if 2 * found >= len(records) > 0 else None


def numbered_lines(content: str) -> list[tuple[int, str]]:
    """The lines that are not blank, and their numbers."""
    # Not splitlines, which also splits at characters that stand inside of lines.
    return [(number, line) for number, line in enumerate(content.split("\n"), 1) if line.strip()]


def read_separated(content: str, separator: str) -> list[TextRecord] | None:
    """Separated cells, one record per line; quotation marks are text unless all cells are quoted."""
    lines = numbered_lines(content)
    if not lines or 2 * sum(separator in line for _, line in lines) < len(lines):
        return None
    if separator == "\t" and all(cell[:1] == cell[-1:] == '"' for _, line in lines for cell in line.split("\t")):
        return read_quoted(content, separator)
    name = "tab" if separator == "\t" else separator
    records = [
        TextRecord(number, [cell.strip() for cell in line.split(separator)])
        if separator in line
        else TextRecord(number, None, f"there is no {name} in it")
        for number, line in lines
    ]
    return with_header(records)


def read_csv(content: str) -> list[TextRecord] | None:
    """CSV (RFC 4180), with commas or semicolons, if there is a header or nearly all rows have the same length."""
    for separator in (",", ";"):
        records = read_quoted(content, separator)
        widths = [len(record.value) for record in records if not record.problem]
        usual = max(set(widths), key=widths.count, default=0)
        alike = usual > 1 and widths.count(usual) >= (1 - MOST_UNREADABLE) * len(widths)
        if 2 * len(widths) >= len(records) and (alike or any(isinstance(record.value, dict) for record in records)):
            return records
    return None


def read_quoted(content: str, separator: str) -> list[TextRecord]:
    """Rows of a file whose cells may be quoted; line by line if quotation marks do not match."""
    limit = csv.field_size_limit(max(1, len(content)))
    try:
        rows, line = [], 1
        reader = csv.reader(io.StringIO(content, newline=""), delimiter=separator, strict=True)
        try:
            for cells in reader:
                rows.append(TextRecord(line, cells))
                line = reader.line_num + 1
        except csv.Error:
            rows = []
            for line, text in numbered_lines(content):
                try:
                    rows += [TextRecord(line, cells) for cells in csv.reader([text], delimiter=separator, strict=True)]
                except csv.Error as error:
                    rows.append(TextRecord(line, None, str(error)))
    finally:
        csv.field_size_limit(limit)
    return with_header([row for row in rows if row.problem or any(cell.strip() for cell in row.value)])


def with_header(records: list[TextRecord]) -> list[TextRecord]:
    """Rows with cells by column name if the first row is a header; else unchanged.

    If the next rows could be headers too, all are texts of single words, such as "no" and "hi".
    """
    first = [not record.problem and is_header(record.value) for record in records[:20]]
    if len(first) < 4 or not first[0] or any(first[1:]):
        return records
    names = [name.strip().lower() for name in records[0].value]
    return [
        record if record.problem else TextRecord(record.line, dict(zip(names, record.value, strict=False)))
        for record in records[1:]
    ]


def is_header(cells: list[str]) -> bool:
    """Whether cells are a header: at least two usual names of text columns, the others without a full stop."""
    names = [name.strip().lower() for name in cells]
    plain = all(re.fullmatch(r"[\w ()/:#-]{1,40}", name) for name in names)
    return plain and len(set(names)) == len(names) and sum(map(is_field_name, names)) >= 2


def is_field_name(name: str) -> bool:
    """Whether a name is usual for a field of text, or the name of a language."""
    words = re.findall(r"[^\W\d_]+", name)
    usual = bool(words) and all(word in FIELD_NAMES.split() or is_language(word) for word in words)
    return usual or is_language(name)


def is_language(name: str) -> bool:
    """Whether a name is a language's code, such as "de", "deu" or "de_AT", or its name in English or in itself."""
    code = re.fullmatch(r"([a-z]{2,3})[-_][a-z]{2,4}", name.lower())
    return (code[1] if code else name.lower()) in language_names()


@functools.cache
def language_names() -> frozenset[str]:
    """Codes and names of languages in lower case, from the Unicode Common Locale Data Repository."""
    from babel import Locale
    from babel.core import get_global

    names = Locale("en").languages
    # Without those that are words, too, such as "man", and Indonesian's, which is rather an identifier.
    codes = [code for code in names if len(code) == 2 and code != "id"]
    codes += [code for code, plain in get_global("language_aliases").items() if len(code) == 3 and len(plain) == 2]
    own = [Locale(code).languages[code] for code in ("de", "fr", "es", "it", "pt", "nl", "pl", "ru", "uk", "zh", "ja")]
    return frozenset(name.lower() for name in [*codes, *names.values(), *own])


RECORD_FORMATS = (
    RecordFormat("JSON", read_json),
    RecordFormat("JSON lines", read_json_lines),
    RecordFormat("columns with ||| between", functools.partial(read_separated, separator="|||")),
    RecordFormat("tab-separated values", functools.partial(read_separated, separator="\t")),
    RecordFormat("CSV", read_csv),
)
"""Tried in this order."""


def read_records_of(path: Path, formats: tuple[RecordFormat, ...], otherwise: str) -> RecordFile:
    """Records of a text file, in the first format that fits.

    Args:
        path: the file.
        formats: formats to try, such as `RECORD_FORMATS`.
        otherwise: suggestion if none fits.

    Raises:
        UsageError: it cannot be read or is empty, or none fits.
    """
    content = read_text(path)
    if not content.strip():
        raise UsageError(f"{path} is empty: name another file with --data")
    like_json = bool(re.match(r"\s*[\[{]\s*[\"\[{]", content))
    for name, read in formats:
        if (name.startswith("JSON") or not like_json) and (records := read(content)):
            header = not name.startswith("JSON") and any(isinstance(record.value, dict) for record in records)
            return RecordFile(f"{name} with a header" if header else name, records)
    if like_json or path.suffix.lower().startswith(".json"):
        raise UsageError(f"{path} holds no records in JSON: {json_problem(content)}")
    known = ", ".join(name for name, _ in formats)
    raise UsageError(f"{path} is in none of the known formats ({known}): {otherwise}")


def json_problem(content: str) -> str:
    """Position and message of the JSON error in a text."""
    problem = "there are no lists or objects in it"
    for text, first in [(content, 1), *((line, number) for number, line in numbered_lines(content))]:
        try:
            json.loads(text)
        except RecursionError:
            return f"line {first:,} is nested too deeply"
        except json.JSONDecodeError as error:
            problem = f"line {first + error.lineno - 1:,}, column {error.colno:,}: {error.msg}"
            if error.msg != "Extra data":
                break
    return problem


def usable_values(file: RecordFile, path: Path, value_of: Callable[[Any], Any], passed_over: PassedOver) -> list[Any]:
    """Values of all records by `value_of`; a few invalid records are passed over.

    Args:
        file: the records.
        path: their file.
        value_of: function from a record to its value; raises ValueError, KeyError or TypeError for an invalid one.
        passed_over: gets the invalid records.

    Raises:
        UsageError: more than a tenth is invalid; the first is named.
    """
    values, problems = [], []
    for line, value, problem in file.records:
        try:
            if problem:
                raise ValueError(problem)
            values.append(value_of(value))
        except (ValueError, KeyError, TypeError) as error:
            reason = f"there is no field {error}" if isinstance(error, KeyError) else str(error)
            problems.append((f"line {line:,}", reason))
    if len(problems) > MOST_UNREADABLE * len(file.records):
        place, reason = problems[0]
        raise UsageError(
            f"{path}, read as {file.format}: {len(problems):,} of {len(file.records):,} records cannot be used, the "
            f"first of them in {place}: {reason}"
        )
    for place, _ in problems:
        passed_over.add("that cannot be read", f"{path.name}, {place}")
    return values
