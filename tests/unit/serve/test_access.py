"""Logins: which are right, what is remembered, and which files are no files of logins."""

from __future__ import annotations

import asyncio
import base64
import os
from pathlib import Path

import bcrypt
import pytest

from layertee.errors import ServeConfigError
from layertee.serve.access import REMEMBERED_S, Access, read_logins
from layertee.serve.answers import Code, Refusal


def line(name: str, password: str, prefix: bytes = b"2b", *, cost: int = 4) -> str:
    """As htpasswd -B writes it, with the least cost."""
    hashed = bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt(cost))
    return f"{name}:{hashed.replace(b'2b', prefix, 1).decode()}\n"


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


@pytest.fixture
def logins(tmp_path: Path) -> Path:
    path = tmp_path / "htpasswd"
    path.write_text(f"# who may come in\n\n{line('ann', 'secret')}{line('bob', 'pass:word', b'2y')}")
    return path


class Guard:
    """The access to a file of logins, and the time."""

    def __init__(self, path: Path) -> None:
        self.now = 0.0
        self.access = Access(path, clock=lambda: self.now)

    def asks(self, *fields: str | None) -> list[bool]:
        """What several requests that come together are answered."""

        async def main() -> list[bool]:
            return list(await asyncio.gather(*(self.access.allows(field) for field in fields)))

        return asyncio.run(main())


@pytest.mark.parametrize(
    ("field", "is_right"),
    [
        (basic("ann", "secret"), True),
        (basic("ann", "secret").replace("Basic", "bAsIc"), True),
        (basic("bob", "pass:word"), True),
        (basic("bob", "pass"), False),
        (basic("ann", "secret2"), False),
        (basic("ann", ""), False),
        (basic("", "secret"), False),
        (basic("carl", "secret"), False),
        (basic("ann", "secret\0"), False),
        (basic("ann", "s" * 100_000), False),
        (None, False),
        ("", False),
        ("Basic", False),
        ("Basic !!!!", False),
        ("Basic YW5u", False),
        ("Basic ö", False),
        (basic("ann", "secret").replace("Basic", "Bearer"), False),
    ],
)
def test_only_the_right_password_lets_in(logins: Path, field: str | None, is_right: bool) -> None:
    assert Guard(logins).asks(field) == [is_right]


def test_a_password_that_bcrypt_would_cut_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    path.write_text(line("ann", "x" * 72))
    assert Guard(path).asks(basic("ann", "x" * 72), basic("ann", "x" * 73)) == [True, False]


def test_a_name_that_nobody_has_costs_the_same(logins: Path) -> None:
    guard = Guard(logins)
    guard.asks(basic("nobody", "x"))
    assert guard.access.n_checked == 1
    guard.asks(basic("ann", "x" * 200))
    assert guard.access.n_checked == 2


def test_forty_layers_cost_one_check(logins: Path) -> None:
    guard = Guard(logins)
    assert all(guard.asks(*[basic("ann", "secret")] * 40))
    assert all(guard.asks(basic("ann", "secret")))
    assert guard.access.n_checked == 1
    guard.now += REMEMBERED_S + 1
    assert all(guard.asks(basic("ann", "secret")))
    assert guard.access.n_checked == 2


def test_what_was_wrong_is_checked_again(logins: Path) -> None:
    guard = Guard(logins)
    for _ in range(3):
        assert guard.asks(basic("ann", "wrong")) == [False]
    assert guard.access.n_checked == 3


def test_a_name_and_a_password_are_not_glued_together(tmp_path: Path) -> None:
    """Else "a" with "b:c" would let in "a:b" with "c"; names have no colon, and still."""
    path = tmp_path / "htpasswd"
    path.write_text(line("ab", "c"))
    guard = Guard(path)
    assert guard.asks(basic("ab", "c")) == [True]
    assert guard.asks(basic("a", "bc"), basic("abc", "")) == [False, False]


def test_the_file_is_read_again_when_it_changes(logins: Path) -> None:
    guard = Guard(logins)
    assert guard.asks(basic("ann", "secret")) == [True]
    new = logins.with_suffix(".new")
    new.write_text(line("ann", "other"))
    os.replace(new, logins)
    assert guard.asks(basic("ann", "secret"), basic("ann", "other")) == [False, True]


def test_nobody_comes_in_while_the_file_is_broken(logins: Path, caplog: pytest.LogCaptureFixture) -> None:
    guard = Guard(logins)
    right = logins.read_text()
    assert guard.asks(basic("ann", "secret")) == [True]
    logins.write_text("ann:secret\n")
    assert guard.asks(basic("ann", "secret"), basic("ann", "secret")) == [False, False]
    assert "every login is refused" in caplog.text
    assert "secret" not in caplog.text
    logins.unlink()
    assert guard.asks(basic("ann", "secret")) == [False]
    logins.write_text(right)
    assert guard.asks(basic("ann", "secret")) == [True]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "no login"),
        ("# nothing\n", "no login"),
        ("ann\n", ":1:"),
        ("ann:secret\n", ":1:"),
        ("\nann:$apr1$abcdefgh$abcdefghijklmnopqrstuv\n", ":2:"),
        ("ann:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n", ":1:"),
        (":" + "$2y$05$" + "a" * 53, ":1:"),
        ("ann:$2y$31$" + "a" * 53, "cost"),
        ("ann:$2y$03$" + "a" * 53, "cost"),
        (2 * ("ann:$2y$05$" + "a" * 53 + "\n"), ":2:"),
        ("x" * (1 << 20) + "\n", "larger"),
    ],
)
def test_a_file_that_is_none_of_logins_is_refused(tmp_path: Path, text: str, where: str) -> None:
    path = tmp_path / "htpasswd"
    path.write_text(text)
    with pytest.raises(ServeConfigError, match=where) as caught:
        read_logins(path)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServeConfigError, match="No such file"):
        Access(tmp_path / "htpasswd")


def test_a_pipe_is_no_file_of_logins_and_is_not_waited_for(logins: Path) -> None:
    guard = Guard(logins)
    logins.unlink()
    os.mkfifo(logins)
    assert guard.asks(basic("ann", "secret")) == [False]
    with pytest.raises(ServeConfigError, match="not a plain file"):
        read_logins(logins)


# --- many at once -----------------------------------------------------------------------------------------

MALLORY = "192.0.2.66:1000"
ANN = "192.0.2.1:1000"


@pytest.fixture
def slow_logins(tmp_path: Path) -> Path:
    """A check takes long enough for others to come meanwhile."""
    path = tmp_path / "htpasswd"
    path.write_text(line("ann", "secret", cost=8) + line("bob", "pass:word"))
    return path


class Crowd:
    """Logins that are asked for and not waited for. To be made where an event loop runs."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._tasks: list[asyncio.Task[bool]] = []

    async def sends_wrong_ones(self, number: int, peer: str = MALLORY) -> None:
        for n in range(number):
            asked = self._access.allows(basic("ann", f"{peer} {len(self._tasks)} {n}"), peer)
            self._tasks.append(asyncio.create_task(asked))
        for _ in range(5):
            await asyncio.sleep(0)

    async def goes(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def results(self) -> list[bool | BaseException]:
        return await asyncio.gather(*self._tasks, return_exceptions=True)


def test_a_check_that_no_client_waits_for_is_dropped(slow_logins: Path) -> None:
    async def main() -> None:
        access = Access(slow_logins)
        crowd = Crowd(access)
        await crowd.sends_wrong_ones(30)
        await crowd.goes()
        assert await access.allows(basic("ann", "secret"), MALLORY)
        assert access.n_checked < 6, "two ran already"

    asyncio.run(main())


def test_who_leaves_takes_no_check_from_another_that_waits_for_the_same(slow_logins: Path) -> None:
    async def main() -> None:
        access = Access(slow_logins)
        crowd = Crowd(access)
        await crowd.sends_wrong_ones(10)
        one, other = (asyncio.create_task(access.allows(basic("ann", "secret"), MALLORY)) for _ in range(2))
        await asyncio.sleep(0)
        one.cancel()
        assert await other
        await crowd.goes()

    asyncio.run(main())


def test_wrong_logins_of_one_host_do_not_keep_others_out(slow_logins: Path) -> None:
    async def main() -> None:
        access = Access(slow_logins)
        crowd = Crowd(access)
        await crowd.sends_wrong_ones(30)
        assert await access.allows(basic("ann", "secret"), ANN)
        assert access.n_checked <= 6
        assert await crowd.results() == [False] * 30

    asyncio.run(main())


def test_what_was_right_within_the_hour_goes_before_what_is_new(slow_logins: Path) -> None:
    async def main() -> None:
        guard = Guard(slow_logins)
        access = guard.access
        assert await access.allows(basic("ann", "secret"), ANN)
        guard.now += REMEMBERED_S + 1
        crowd = Crowd(access)
        for n in range(20):
            await crowd.sends_wrong_ones(5, f"192.0.2.{n}:1000")
        before = access.n_checked
        assert await access.allows(basic("ann", "secret"), ANN)
        assert access.n_checked - before < 6
        await crowd.goes()

    asyncio.run(main())


def test_too_many_are_to_come_again_and_what_is_remembered_does_not_wait(slow_logins: Path) -> None:
    async def main() -> None:
        access = Access(slow_logins)
        assert await access.allows(basic("bob", "pass:word"), MALLORY)
        crowd = Crowd(access)
        await crowd.sends_wrong_ones(100)
        before = access.n_checked
        assert await access.allows(basic("bob", "pass:word"), MALLORY)
        assert access.n_checked == before
        results = await crowd.results()
        refused = [one for one in results if isinstance(one, Refusal)]
        assert 60 <= len(refused) < 70
        assert all((one.status, one.code) == (429, Code.TOOMANYREQUESTS) for one in refused)
        assert all(int(one.fields["Retry-After"]) > 0 for one in refused)
        assert [one for one in results if one not in refused] == [False] * (100 - len(refused))

    asyncio.run(main())


def test_of_many_hosts_those_with_most_make_room_for_another(slow_logins: Path) -> None:
    async def main() -> None:
        access = Access(slow_logins)
        crowd = Crowd(access)
        for n in range(9):
            await crowd.sends_wrong_ones(34, f"198.51.100.{n}:1000")
        assert await access.allows(basic("ann", "secret"), ANN)
        assert access.n_checked < 40
        await crowd.goes()

    asyncio.run(main())


@pytest.mark.parametrize("peers", ["2001:db8::{}:1", "2001:db8:0:0:{}::1:1", "::ffff:192.0.2.1:{}"])
def test_the_addresses_of_a_network_are_one_host(slow_logins: Path, peers: str) -> None:
    async def main() -> None:
        access = Access(slow_logins)
        crowd = Crowd(access)
        for n in range(1, 50):
            await crowd.sends_wrong_ones(1, peers.format(n))
        assert any(isinstance(one, Refusal) for one in await crowd.results())

    asyncio.run(main())
