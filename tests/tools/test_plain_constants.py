"""What is the same throughout a plain copy, and the text without it."""

import textwrap

import pytest

from shared.tools.plain_constants import CopiedCode
from shared.tools.plain_settled import with_constants
from shared.tools.plain_text import HOOKS

pytestmark = pytest.mark.once


def settled(text):
    """A text after as many rounds as it takes."""
    text, rounds = textwrap.dedent(text).lstrip("\n"), []
    while (settlement := CopiedCode([with_constants(text, rounds)]).settlement(HOOKS)).settles:
        rounds.append(settlement)
    return with_constants(text, rounds)


def check(text, expected):
    """Compares texts but for blank lines, which a formatter sets."""
    ours, theirs = (list(filter(None, each.split("\n"))) for each in (settled(text), textwrap.dedent(expected)))
    assert ours == theirs


def test_arguments_that_no_call_gives():
    check(
        """
        def scaled(x, factor=2, shift=None):
            y = x * factor
            if shift is not None:
                y = y + shift
            return y


        print(scaled(3))
        """,
        """
        def scaled(x):
            y = x * 2
            return y


        print(scaled(3))
        """,
    )


def test_what_is_never_reached():
    check(
        """
        def told(name, short=True):
            first = name[0]
            if first.isupper():
                if short:
                    return first
                first = first.lower()
            else:
                first = first.upper()
            if short:
                return first
            rest = name[1:]
            return first + rest


        print(told("a"))
        """,
        """
        def told(name):
            first = name[0]
            if first.isupper():
                return first
            else:
                first = first.upper()
            return first


        print(told("a"))
        """,
    )


@pytest.mark.parametrize(("arguments", "kept"), [("0.1", False), ("0.1, use_ema=True", True)])
def test_averages_that_no_optimizer_keeps(arguments, kept):
    text = f"""
        def show(optimizer):
            averaged = optimizer.use_ema
            if averaged:
                print("averages")


        show(keras.optimizers.SGD({arguments}))
        """
    assert ('print("averages")' in settled(text)) == kept


def test_flags_that_every_call_gives():
    check(
        """
        def told(name, loud, count):
            return name.upper() if loud else name


        print(told("a", True, 1), told("b", loud=True, count=1))
        """,
        """
        def told(name, count):
            return name.upper()


        print(told("a", 1), told("b", count=1))
        """,
    )


def test_numbers_that_say_more_by_their_names():
    text = "def parts(x, size=100):\n    return x[:size], x[size:]\n\n\nparts([])\n"
    check(text, text)


def test_arguments_that_are_changed_or_handed_on():
    text = """
        def last(x, best=None):
            for each in x:
                best = each
            return best


        def shown(x, mark="*"):
            return mark + x


        print(last([1]), list(map(shown, "ab")))
        """
    check(text, text)


def test_arguments_in_dictionaries_that_are_handed_on():
    check(
        """
        class Base:
            def __init__(self, size, gated=False, kind="layer"):
                self.size = size
                self.gated = gated
                self.kind = kind

            def grown(self):
                return self.size * (2 if self.gated else 1)


        class Heir(Base):
            def __init__(self, size, **kwargs):
                super().__init__(size, **kwargs)


        class Stack:
            made_of = Heir

            def __init__(self, size, kind):
                options = {"size": size, "gated": False, "kind": kind}
                self.part = self.made_of(**options)


        print(Stack(3, "rms").part.grown())
        """,
        """
        class Base:
            def __init__(self, size, kind="layer"):
                self.size = size
                self.kind = kind

            def grown(self):
                return self.size * 1


        class Heir(Base):
            def __init__(self, size, **kwargs):
                super().__init__(size, **kwargs)


        class Stack:
            made_of = Heir

            def __init__(self, size, kind):
                options = {"size": size, "kind": kind}
                self.part = self.made_of(**options)


        print(Stack(3, "rms").part.grown())
        """,
    )


LAYER = """
@keras.saving.register_keras_serializable()
class Part(layers.Layer):
    def __init__(self, size, gated=False, **kwargs):
        super().__init__(**kwargs)
        self.size, self.gated = size, gated
{}

def build_model():
    return Part(3, name="part")


build_model()
"""


@pytest.mark.parametrize("config", ["", '\n    def get_config(self):\n        return {"size": 1, "gated": False}\n'])
def test_what_a_saved_model_holds_stays(config):
    check(LAYER.format(config), LAYER.format(config))


def test_what_a_saved_model_does_not_hold_goes():
    config = '\n    def get_config(self):\n        return {"size": self.size}\n'
    assert "gated=" not in settled(LAYER.format(config))


def test_fields():
    check(
        """
        @dataclass
        class Search:
            beams: int = 1
            most: int = 0
            \"""Of what.\"""


        @dataclass
        class Config:
            rate: float = 0.1


        def step(method):
            if method.most:
                print(method.most)
            return method.beams


        print(step(Search(4)), Config())
        """,
        """
        @dataclass
        class Search:
            beams: int = 1


        @dataclass
        class Config:
            rate: float = 0.1


        def step(method):
            return method.beams


        print(step(Search(4)), Config())
        """,
    )


def test_attributes_of_one_name_that_mean_different_things_stay():
    text = """
        @dataclass
        class Search:
            most: int = 0


        class Other:
            def __init__(self, most):
                self.most = most


        print(Search().most, Other(3).most)
        """
    check(text, text)


def test_methods_that_nothing_calls():
    text = """
        class Attention:
            def found(self, x):
                return x
        {step}

        class Decoder:
            def __init__(self, attention):
                self.attention = attention

            def step(self, x):
                return self.attention.found(x)

            def twice(self, x):
                return self.step(self.step(x))


        print(Decoder(Attention()).twice(3))
        """
    step = """
            def step(self, x):
                return self.found(x)

"""
    check(text.replace("        {step}\n", step), text.replace("        {step}\n", "\n"))


def test_texts_with_settled_parts():
    check(
        """
        def path(name, phase=""):
            return f"history{phase and '-' + phase}-{name}.csv"


        print(path("a"))
        """,
        """
        def path(name):
            return f"history-{name}.csv"


        print(path("a"))
        """,
    )
