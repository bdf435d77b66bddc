"""Where a registry's certificates are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from layertee.config.certs import find_cert_dir
from layertee.config.home import User
from tests.support.users import closed

HOST = "registry.example.com:5000"


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User.of({"HOME": str(tmp_path / "home")})


def test_the_users_directory_comes_before_the_systems(tmp_path: Path, user: User) -> None:
    system = (tmp_path / "etc", tmp_path / "usr")
    assert find_cert_dir(HOST, user=user, system=system) is None
    (system[1] / HOST).mkdir(parents=True)
    assert find_cert_dir(HOST, user=user, system=system) == system[1] / HOST
    (system[0] / HOST).mkdir(parents=True)
    assert find_cert_dir(HOST, user=user, system=system) == system[0] / HOST
    own = tmp_path / "home/.config/containers/certs.d" / HOST
    own.mkdir(parents=True)
    assert find_cert_dir(HOST, user=user, system=system) == own
    assert find_cert_dir("registry.example.com", user=user, system=system) is None


def test_a_user_without_a_home_has_those_of_the_system(tmp_path: Path) -> None:
    (tmp_path / HOST).mkdir()
    homeless = User.of({}, 54321, lambda _: None)
    assert find_cert_dir(HOST, user=homeless, system=(tmp_path,)) == tmp_path / HOST
    assert find_cert_dir(HOST, user=homeless, system=()) is None


@pytest.mark.parametrize("what", ["file", "circle", "too long", "nul"])
def test_what_stands_in_the_way_hides_a_directory_and_no_more(tmp_path: Path, user: User, what: str) -> None:
    base, host = tmp_path / "home/.config/containers/certs.d", HOST
    base.parent.mkdir(parents=True)
    if what == "file":
        base.touch()
    elif what == "circle":
        base.symlink_to(base)
    else:
        host = "h" * 300 if what == "too long" else "h\0"
    assert find_cert_dir(host, user=user, system=(tmp_path,)) is None
    (tmp_path / HOST).mkdir()
    assert find_cert_dir(HOST, user=user, system=(base, tmp_path)) == tmp_path / HOST


@pytest.mark.parametrize("which", ["certs.d", f"certs.d/{HOST}"])
def test_a_directory_of_somebody_else_is_passed_over(tmp_path: Path, user: User, which: str) -> None:
    (tmp_path / "certs.d" / HOST).mkdir(parents=True)
    (tmp_path / "usr" / HOST).mkdir(parents=True)
    system = (tmp_path / "certs.d", tmp_path / "usr")
    with closed(tmp_path / which):
        assert find_cert_dir(HOST, user=user, system=system) == tmp_path / "usr" / HOST


def test_a_home_of_somebody_else_has_none(tmp_path: Path, user: User) -> None:
    (tmp_path / "home/.config/containers/certs.d" / HOST).mkdir(parents=True)
    with closed(tmp_path / "home"):
        assert find_cert_dir(HOST, user=user, system=()) is None
