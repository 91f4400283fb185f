"""One tree of errors."""

import inspect
import pickle

import pytest

from asyncrunner import errors
from asyncrunner.errors import AsyncRunnerError

ALL = [getattr(errors, name) for name in errors.__all__]


def test_every_error_is_public_and_below_the_one_base() -> None:
    defined = {
        name
        for name, value in inspect.getmembers(errors, inspect.isclass)
        if issubclass(value, BaseException)
    }
    assert defined == set(errors.__all__)
    assert errors.__all__ == sorted(errors.__all__)
    assert all(issubclass(error, AsyncRunnerError) for error in ALL)


@pytest.mark.parametrize("error_type", ALL)
def test_every_error_can_be_pickled_with_its_notes(error_type: type[AsyncRunnerError]) -> None:
    error = error_type("what was wrong")
    error.add_note("where")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is error_type
    assert str(copy) == "what was wrong"
    assert copy.__notes__ == ["where"]


@pytest.mark.parametrize("error_type", ALL)
def test_every_error_is_drawn_in_the_tree_of_the_module(
    error_type: type[AsyncRunnerError],
) -> None:
    assert errors.__doc__ is not None
    assert error_type.__name__ in errors.__doc__
