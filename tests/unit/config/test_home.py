"""Where a user keeps things, over what the environment and passwd may say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layertee.config.home import User, passwd_home
from layertee.errors import LocalError, NoHome
from layertee.places.blobinfocache import FILE, default_path
from layertee.store.store import default_root

PASSWD = {0: "/root", 7: "/home/seven", 8: "", 9: "relative"}
NOBODY = 54321


def user(uid: int, **environ: str) -> User:
    return User.of(environ, uid, PASSWD.get)


def beneath(home: str | None, uid: int) -> User:
    """The user whose directories are all in the usual places."""
    if home is None:
        return User(uid, None, None, None, None, None)
    at = Path(home)
    return User(uid, at, at / ".config", at / ".local/share", at / ".cache", None)


@pytest.mark.parametrize("uid", [0, 7, NOBODY])
def test_home_is_what_the_environment_says(uid: int) -> None:
    assert user(uid, HOME="/h") == beneath("/h", uid)


@pytest.mark.parametrize("home", [None, "", "relative", ".", "~", "/a\0b"])
@pytest.mark.parametrize(("uid", "found"), [(0, "/root"), (7, "/home/seven")])
def test_without_a_usable_home_passwd_is_asked(uid: int, found: str, home: str | None) -> None:
    environ = {} if home is None else {"HOME": home}
    assert User.of(environ, uid, PASSWD.get) == beneath(found, uid)


@pytest.mark.parametrize("uid", [8, 9, NOBODY])
def test_a_user_may_have_no_home(uid: int) -> None:
    assert user(uid) == beneath(None, uid)


def test_passwd_is_not_asked_where_the_environment_knows() -> None:
    def passwd(uid: int) -> str:
        raise AssertionError("a directory service may take seconds")

    assert User.of({"HOME": "/h"}, 7, passwd).home == Path("/h")


@pytest.mark.parametrize("uid", [0, 7, NOBODY])
def test_the_directories_may_be_elsewhere(uid: int) -> None:
    environ = {
        "XDG_CONFIG_HOME": "/c",
        "XDG_DATA_HOME": "/d",
        "XDG_CACHE_HOME": "/e",
        "XDG_RUNTIME_DIR": "/r",
    }
    want = Path("/c"), Path("/d"), Path("/e"), Path("/r")
    for more in ({}, {"HOME": "/h"}):
        found = User.of(environ | more, uid, PASSWD.get)
        assert (found.config, found.data, found.cache, found.runtime) == want


@pytest.mark.parametrize("value", ["", "relative", "./x", "/a\0b"])
def test_a_directory_that_is_not_absolute_is_ignored(value: str) -> None:
    names = ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR")
    environ = dict.fromkeys(names, value)
    assert User.of(environ | {"HOME": "/h"}, 7) == beneath("/h", 7)
    assert User.of(environ, NOBODY, PASSWD.get) == beneath(None, NOBODY)


def test_the_real_user_database_is_asked() -> None:
    assert passwd_home(0) == os.path.expanduser("~root")
    assert passwd_home(NOBODY) is None, "this test needs a uid without an entry"
    assert User.of({}).uid == os.geteuid()


# --- what is kept in a home -------------------------------------------------


def test_the_stores_usual_place() -> None:
    assert default_root(user(0)) == default_root(user(0, XDG_DATA_HOME="/d")) == Path("/var/lib/layertee")
    assert default_root(user(7)) == Path("/home/seven/.local/share/layertee")
    assert default_root(user(7, XDG_DATA_HOME="/d")) == Path("/d/layertee")
    assert default_root(user(7, XDG_DATA_HOME="d")) == Path("/home/seven/.local/share/layertee")
    assert default_root(user(NOBODY, XDG_DATA_HOME="/d")) == Path("/d/layertee")


def test_the_usual_place_of_podmans_cache() -> None:
    assert default_path(user(0, XDG_DATA_HOME="/d")) == Path("/var/lib/containers/cache", FILE)
    assert default_path(user(7)) == Path("/home/seven/.local/share/containers/cache", FILE)
    assert default_path(user(7, XDG_DATA_HOME="/d", HOME="/h")) == Path("/d/containers/cache", FILE)
    assert default_path(user(7, XDG_DATA_HOME="d", HOME="/h")) == Path(
        "/h/.local/share/containers/cache", FILE
    )


@pytest.mark.parametrize("ask", [default_root, default_path])
def test_without_a_home_it_is_said_what_to_set(ask: object) -> None:
    assert callable(ask)
    with pytest.raises(NoHome, match=r"user 54321 has no home.*set HOME or XDG_DATA_HOME") as caught:
        ask(user(NOBODY))
    assert isinstance(caught.value, LocalError)
    assert (caught.value.code, caught.value.retryable) == ("NO_HOME", False)
