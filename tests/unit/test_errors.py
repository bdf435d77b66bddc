"""What every error of the package carries."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from layertee.errors import LayerteeError, NoSpace, NotFound, NotInRegistry, RegistryError, TruncatedBody
from tests.support.pages import every_error


def test_an_error_has_no_hint_unless_it_is_given_one() -> None:
    assert (LayerteeError.hint, LayerteeError("x").hint) == ("", "")


def test_a_hint_is_given_where_the_error_is_raised_and_stays_with_that_one_error() -> None:
    with pytest.raises(TruncatedBody, match="ended") as caught:
        raise TruncatedBody("ended", got=2, want=3).with_hint("other-word")
    assert (caught.value.hint, caught.value.got) == ("other-word", 2)
    assert TruncatedBody("ended", got=2, want=3).hint == ""
    assert NoSpace("full").hint == "free-space"


def made(kind: type[LayerteeError]) -> LayerteeError:
    """One of ``kind``, with what it has to be made with."""
    first, *others = inspect.signature(kind).parameters.values()
    needed = {one.name: 3 for one in others if one.default is one.empty}
    if first.name == "message":
        return kind("what happened", **needed)
    error = kind.__new__(kind, "what happened")  # one that words its message by itself
    vars(error).update(needed)
    return error


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: str(kind.__name__))
def test_an_error_crosses_to_another_process_with_its_facts(kind: type[LayerteeError]) -> None:
    error = made(kind).with_hint("a-word")
    error.add_note("and a note")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is kind
        assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))
        assert again.__notes__ == ["and a note"]


def test_what_an_error_is_made_with_is_kept_under_the_same_name() -> None:
    for kind in every_error():
        names = list(inspect.signature(kind).parameters)[1:]
        error = made(kind)
        assert [name for name in names if not hasattr(error, name)] == [], kind


def test_only_what_a_registry_answered_is_an_error_of_a_registry() -> None:
    assert not issubclass(NotFound, RegistryError)
    assert issubclass(NotInRegistry, NotFound)
    assert (NotInRegistry("gone").status, NotInRegistry("gone").code) == (404, NotFound.code)
