"""What a plain copy leaves out, and what it writes otherwise, on small texts."""

import ast
import textwrap

import pytest

from shared.tools.plain_file import (
    with_comments,
    with_expressions,
    with_joined_attributes,
    with_one_history,
    without_output_shapes,
)
from shared.tools.plain_text import configs_of_arguments, edited, fewer_arguments, shorter_docstring, without_checks

pytestmark = pytest.mark.once


def lines(text):
    return textwrap.dedent(text).strip("\n")


def assert_same(found, expected):
    ast.parse(found)
    assert [line for line in found.split("\n") if line.strip()] == lines(expected).split("\n")


def test_docstrings_keep_their_first_paragraph_and_shapes():
    docstring = '"""Convolution.\n\n    Quick.\n\n    Args:\n        filters: of it.\n\n    Input: (batch, n).\n    """'
    assert shorter_docstring(docstring, 4) == '"""Convolution. Input: (batch, n)."""'
    assert (
        shorter_docstring('"""Coefficients, in each field:\n\n    more\n    """', 4)
        == '"""Coefficients, in each field."""'
    )


def test_checks_go_with_what_only_they_use():
    text = lines("""
        def load(self):
            data = read(self.data)
            examples, size = data.shape
            longest = max(size, 3)
            self.require("batch_size", self.batch_size <= examples, f"must be at most {longest}")
            return data


        def __post_init__(self):
            rule = "must be even"
            self.require("units", self.units % 2 == 0, rule)
        """)
    assert_same(edited(text, without_checks), """
        def load(self):
            data = read(self.data)
            return data
        """)  # fmt: skip


def test_arguments_that_a_counterpart_does_not_take_are_left_out():
    text = lines("""
        from shared.a import train
        from shared.b import other

        train(one, exactly=two(three), size=4)
        train(exactly=1, size=2)
        other(exactly=True)
        """)
    counterpart = {"shared.a": ast.parse("def train(data, size=1): ...")}.get
    found = edited(text, lambda tree: fewer_arguments(tree, counterpart))
    assert [ast.unparse(node) for node in ast.parse(found).body[2:]] == [
        "train(one, size=4)", "train(size=2)", "other(exactly=True)",
    ]  # fmt: skip


def test_calls_of_one_expression_become_this():
    text = lines("""
        def pooled(x, size, padding="same"):
            \"\"\"The maxima.\"\"\"
            return ops.max_pool(x, size, padding=padding)


        def applied(function, x):
            return function(x)


        def mean(a, b):
            return a * 2 + b


        def twice_used(x):
            return ops.abs(x) + 1


        y = pooled(pooled(x, 2), 3, padding="valid") + mean(a, b) * 2
        z = applied(lambda rows: embed(rows, reverse=True), inputs) + twice_used(1) + twice_used(2)
        """)
    found = with_expressions(text, {"pooled", "applied"}, {"mean", "twice_used"})
    assert_same(found, """
        def twice_used(x):
            return ops.abs(x) + 1
        y = ops.max_pool(ops.max_pool(x, 2, padding='same'), 3, padding='valid') + (a * 2 + b) * 2
        z = embed(inputs, reverse=True) + twice_used(1) + twice_used(2)
        """)  # fmt: skip


LAYERS = """
class Inner(layers.Layer):
    def __init__(self, units, **kwargs):
        self.units = units
    def compute_output_shape(self, input_shape):
        return input_shape
    def get_config(self):
        return super().get_config() | {"units": self.units}
class Outer(layers.Layer):
    def __init__(self, width, **kwargs):
        self.inner = Inner(width)
    def build(self, input_shape):
        self.shape = self.inner.compute_output_shape(input_shape)
    def compute_output_shape(self, input_shape):
        return input_shape
    def get_config(self):
        return super().get_config() | {"columns": self.inner.units}
"""


def test_layers_say_only_what_keras_does_not_find():
    found = without_output_shapes(edited(LAYERS.strip("\n"), configs_of_arguments))
    inner, outer = ([method.name for method in each.body] for each in ast.parse(found).body)
    assert inner == ["__init__", "compute_output_shape"]  # which Outer asks for
    assert outer == ["__init__", "build", "get_config"]


def test_meanings_stand_beside_fields():
    text = lines("""
        class Found(NamedTuple):
            values: dict
            \"\"\"By name; empty where there is none, which is a sentence of more than the one hundred and twenty
            characters that fit.\"\"\"
            scores: Any
            \"\"\"(batch,).\"\"\"
        """)
    assert_same(with_comments(text), """
        class Found(NamedTuple):
            values: dict  # By name
            scores: Any  # (batch,).
        """)  # fmt: skip


def test_attributes_are_set_together():
    text = "    self.a = a\n    self.b = b\n    self.c = d\n    self.e = e"
    assert with_joined_attributes(text) == "    self.a, self.b = a, b\n    self.c = d\n    self.e = e"


def test_a_run_of_one_phase_has_one_history():
    text = lines("""
        class Run:
            def __init__(self):
                self.histories: dict[str, list] = {}  # by phase

            @property
            def history(self) -> list:
                return self.histories[""]

            def fit(self):
                self.histories[""] = [1]
        """)
    assert_same(with_one_history(text), """
        class Run:
            def __init__(self):
                self.history: list = []  # the results of each epoch
            def fit(self):
                self.history = [1]
        """)  # fmt: skip
    phases = text.replace('[""] = [1]', "[phase] = [1]")
    assert with_one_history(phases) == phases
