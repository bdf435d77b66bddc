"""Logins that a program gives by itself."""

from __future__ import annotations

import asyncio
import threading
import traceback

import pytest

from layertee.config.givenlogins import GivenCredentials
from layertee.config.logins import Login
from layertee.errors import AuthConfigError

ONE, OTHER = Login("one", "first-secret"), Login("other", "second-secret")


def looked_up(found: GivenCredentials, registry: str, repository: str = "os/image") -> Login | None:
    return asyncio.run(found.lookup(registry, repository))


@pytest.mark.parametrize(
    ("keys", "registry", "repository", "expected"),
    [
        (("a.example",), "a.example", "os", ONE),
        (("a.example", "a.example/os"), "a.example", "os/image", OTHER),
        (("a.example", "a.example/os"), "a.example", "osx/image", ONE),
        (("a.example/os", "a.example/os/image"), "a.example", "os/image", OTHER),
        (("a.example:5000",), "a.example", "os", None),
        (("a.example:5000",), "a.example:5000", "os", ONE),
        (("A.Example",), "a.example", "os", ONE),
        (("https://a.example/v1/",), "a.example", "os", ONE),
        (("docker.io",), "index.docker.io", "library/debian", ONE),
        ((), "a.example", "os", None),
    ],
)
def test_the_most_specific_key_of_a_mapping_counts(
    keys: tuple[str, ...], registry: str, repository: str, expected: Login | None
) -> None:
    given = dict(zip(keys, (ONE, OTHER), strict=False))
    assert looked_up(GivenCredentials(given, env={}), registry, repository) == expected


def test_a_function_is_asked_for_the_host_in_a_thread_and_may_block() -> None:
    asked: list[tuple[str, bool]] = []

    def ask(host: str) -> Login | None:
        asked.append((host, threading.current_thread() is threading.main_thread()))
        return ONE if host == "a.example:5000" else None

    given = GivenCredentials(ask, env={})
    assert looked_up(given, "a.example:5000") == ONE
    assert looked_up(given, "b.example") is None
    assert asked == [("a.example:5000", False), ("b.example", False)]


def test_a_function_that_fails_is_an_error_that_says_nothing_of_what_it_knew() -> None:
    def fail(host: str) -> Login | None:
        raise KeyError("first-secret")

    with pytest.raises(AuthConfigError) as caught:
        looked_up(GivenCredentials(fail, env={}), "a.example")
    assert str(caught.value) == "the function that gives credentials failed for a.example: KeyError"
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_error_of_ours_is_passed_on_as_it_is() -> None:
    def fail(host: str) -> Login | None:
        raise AuthConfigError("the vault is sealed")

    with pytest.raises(AuthConfigError, match=r"^the vault is sealed$"):
        looked_up(GivenCredentials(fail, env={}), "a.example")


@pytest.mark.parametrize("wrong", [("me", "first-secret"), "first-secret", {"username": "me"}])
def test_what_is_no_login_is_an_error_that_does_not_show_it(wrong: object) -> None:
    mapping = {"a.example": wrong}
    for given in (mapping, lambda host: wrong):
        with pytest.raises(AuthConfigError, match="not a Login") as caught:
            looked_up(GivenCredentials(given, env={}), "a.example")  # type: ignore[arg-type]
        assert "first-secret" not in "".join(traceback.format_exception(caught.value, limit=0))


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (("u\udcff", "p", ""), "user name"),
        (("u", "p\udcff", ""), "password"),
        (("", "", "\ud800"), "identity token"),
    ],
)
def test_a_login_that_no_request_can_carry_is_an_error(given: tuple[str, str, str], what: str) -> None:
    with pytest.raises(AuthConfigError, match=f"the {what} of a login is not UTF-8") as caught:
        Login(*given)
    assert str(caught.value).isascii()


def test_where_a_login_is_from_is_told_and_not_what_it_is() -> None:
    given = GivenCredentials({"a.example/os": ONE}, env={})
    login = looked_up(given, "a.example")
    assert login is not None
    assert login.source == "the options of the program, for a.example/os"
    assert [str(one) for one in asyncio.run(given.explain("a.example", "os/image"))] == [
        "the options of the program, key a.example/os"
    ]
    assert asyncio.run(given.explain("b.example", "os/image")) == []
    assert len(asyncio.run(GivenCredentials(lambda host: ONE, env={}).explain("b.example", "os"))) == 1
