import inspect

import pytest

from toolchain import errors
from toolchain.errors import IntegrityError, MostoolError, ParityError, UsageError, unknown_name

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, MostoolError)]


def test_each_error_has_the_exit_code_that_the_tree_in_the_docstring_gives_it() -> None:
    drawn = {}
    for line in (errors.__doc__ or "").splitlines():
        words = line.replace("├──", "").replace("└──", "").replace("│", "").split()
        if len(words) > 1 and words[0].endswith("Error") and words[1].isdigit():
            drawn[words[0]] = int(words[1])
    assert drawn == {kind.__name__: kind.exit_code for kind in CLASSES}


def test_each_error_has_a_kind_of_its_own() -> None:
    assert len({kind.kind for kind in CLASSES}) == len(CLASSES)


def test_a_parity_error_is_an_integrity_error() -> None:
    assert issubclass(ParityError, IntegrityError)


@pytest.mark.parametrize(
    ("error", "text"),
    [(MostoolError("it broke"), "it broke"), (UsageError("it broke", why="age", hint="mend it"), "it broke (age)")],
)
def test_an_error_says_what_and_why(error: MostoolError, text: str) -> None:
    assert str(error) == text
    assert error.args == ("it broke",)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("cpuu", "did you mean cpu?"),
        ("jetson", "did you mean jetson-orin?"),
        ("zzz", "known: cpu, jetson-orin, rpi"),
        ("", "known: cpu, jetson-orin, rpi"),
    ],
)
def test_an_unknown_name_hints_at_the_nearest_known_one(name: str, hint: str) -> None:
    error = unknown_name("device", name, iter(["rpi", "jetson-orin", "cpu"]))
    assert isinstance(error, UsageError)
    assert str(error) == f"unknown device: {name!r}"
    assert error.hint == hint


def test_an_unknown_name_among_none_says_none() -> None:
    assert unknown_name("device", "cpu", []).hint == "known: none"
