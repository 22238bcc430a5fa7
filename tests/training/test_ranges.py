"""Options with ranges in their types: on the command line, in Python, and in the help."""

from dataclasses import dataclass

import pytest
from conftest import refused_in_one_line

from shared.training.command_line import parse_command_line
from shared.training.options import Options, parse_options
from shared.training.ranges import Count, Fraction, Limit, NonNegative, Number, Part, Positive, Range, Rate, Whole

pytestmark = pytest.mark.once


@dataclass(kw_only=True)
class Config(Options):
    epochs: Count = 1
    batch_size: Count = 1
    learning_rate: Positive = 0.1
    few: Limit = None
    whole: Whole = 0
    number: Number = 0.0
    weight: NonNegative = 0.0
    share: Fraction = 0.0
    rate: Rate = 0.0
    part: Part = 0.5
    widths: tuple[Count, ...] = (1, 2)


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        ("epochs", 0, "must be at least 1, not 0"),
        ("few", 0, "must be at least 1, not 0"),
        ("whole", -1, "must be at least 0, not -1"),
        ("number", float("inf"), "must be a finite number, not inf"),
        ("learning_rate", float("nan"), "must be a finite number, not nan"),
        ("learning_rate", 0.0, "must be above 0, not 0.0"),
        ("weight", -0.5, "must be at least 0, not -0.5"),
        ("share", 1.5, "must be between 0 and 1, not 1.5"),
        ("rate", 1.0, "must be at least 0 and below 1, not 1.0"),
        ("part", 0.0, "must be above 0 and below 1, not 0.0"),
        ("widths", (1, 0), "must be at least 1 each, not (1, 0)"),
        ("widths", (), "must be at least 1 each, not ()"),
        ("seed", 2**32, "must be between 0 and 4294967295, not 4294967296"),
    ],
)
def test_a_value_out_of_range_is_refused_in_python_and_on_the_command_line(option, value, rule):
    name = f"--{option.replace('_', '-')}"
    with refused_in_one_line(f"{name} {rule}"):
        Config(**{option: value})
    with refused_in_one_line(f"{name} {rule}"):
        parse_options(Config, [name, *map(str, value if isinstance(value, tuple) else [value])])


def test_values_in_range_are_taken():
    words = "--few None --whole 3 --number -2 --share 1 --rate 0 --widths 4 5 6 --target None --epochs 7"
    config = parse_options(Config, words.split())
    assert (config.few, config.whole, config.number, config.share, config.rate) == (None, 3, -2.0, 1.0, 0.0)
    assert (config.widths, config.target, config.epochs) == ((4, 5, 6), None, 7)
    assert parse_options(Config, ["--few", "2", "--target", "0.5"]).few == 2


@pytest.mark.parametrize("words", [["--epochs", "1.5"], ["--share", "half"], ["--few", "none"]])
def test_what_is_no_number_is_refused_by_name(words):
    with refused_in_one_line(f"{words[0]}: takes a"):
        parse_options(Config, words)


def test_help_shows_the_ranges(capsys):
    with pytest.raises(SystemExit):
        parse_command_line(Config, ["--help"])
    shown = capsys.readouterr().out
    for text in ("--epochs INT at least 1", "--few INT at least 1 or None", "--share FLOAT between 0 and 1"):
        assert text in shown


@pytest.mark.parametrize("value", [1, 0.5])
def test_a_range(value):
    assert value in Range(above=0, most=1)
    assert None not in Range()
    assert None in Range(optional=True)
