"""Who is asked next for a blob, after every kind of failure. No socket."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertee.errors import (
    ConnectFailed,
    LayerteeError,
    NotInRegistry,
    RangeMismatch,
    RateLimited,
    ServerError,
    SizeMismatch,
    Timeout,
    TLSFailed,
    TruncatedBody,
    Unauthorized,
)
from layertee.image.document import Descriptor, DiffID, Digest
from layertee.transfer.segment import Body
from layertee.transfer.servers import PATIENCE_S, Server, Servers, Sought, Standing
from tests.support.compress import digest_number

BLOB, OTHER = digest_number(1), digest_number(2)
NOT_HERE = NotInRegistry("no such blob", status=404)
BROKEN = TruncatedBody("lost", got=100, want=200)
DEAD = ConnectFailed("connection refused")
# What is wrong with a server, and what only with its answer for one blob.
FAULTS: list[LayerteeError] = [
    DEAD,
    BROKEN,
    Timeout("too slow"),
    TLSFailed("certificate"),
    ServerError("oops", status=500),
    ServerError("busy", status=503),
    RateLimited("wait", status=429, retry_after=30),
    Unauthorized("no", status=403),
]
OF_ONE_BLOB: list[LayerteeError] = [
    NOT_HERE,
    RangeMismatch("other bytes than asked for"),
    SizeMismatch("longer", want=1, got=2),
]


async def _never(blob: Descriptor, start: int, stop: int | None) -> Body:
    raise AssertionError("only names are asked for here")


def named(name: str, *, origin: bool = False) -> Server:
    return Server(f"{name}.test/os", f"{name}.test", _never, origin)


class Three:
    """Two mirrors and the origin, as two images have them."""

    def __init__(self) -> None:
        self.standing = Standing()
        self.first, self.second = named("first"), named("second")
        self.origin = named("origin", origin=True)
        self.servers = Servers([self.first, self.second, self.origin], self.standing)
        self.of_another_image = Servers(
            [named("second"), named("first"), named("else", origin=True)], self.standing
        )

    def fail(self, error: LayerteeError, blob: int = 1, *, progressed: bool = False) -> LayerteeError | None:
        name = digest_number(blob)
        return self.servers.failed(self.servers.pick(name), name, error, progressed=progressed)

    def order(self) -> list[str]:
        return [server.host.partition(".")[0] for server in self.servers.in_order]


@pytest.mark.parametrize("error", FAULTS, ids=lambda error: type(error).__name__)
def test_a_server_that_fails_is_left_at_once_and_goes_behind_the_others(error: LayerteeError) -> None:
    three = Three()
    assert three.servers.pick(BLOB) is three.first
    assert three.fail(error) is None
    assert three.servers.pick(BLOB) is three.second
    assert three.servers.pick(OTHER) is three.second  # for other blobs, too
    assert three.order() == ["second", "origin", "first"]
    assert [server.host for server in three.of_another_image.in_order] == [
        "second.test",
        "else.test",
        "first.test",
    ]


@pytest.mark.parametrize("error", OF_ONE_BLOB, ids=lambda error: type(error).__name__)
def test_a_server_without_this_blob_is_left_for_this_blob_only(error: LayerteeError) -> None:
    three = Three()
    assert three.fail(error) is None
    assert three.servers.pick(BLOB) is three.second
    assert three.servers.pick(OTHER) is three.first
    assert three.order() == ["first", "second", "origin"]


def test_a_connection_that_brought_something_is_resumed_where_it_was() -> None:
    three = Three()
    assert three.fail(BROKEN, progressed=True) is BROKEN
    assert three.servers.pick(BLOB) is three.first
    assert three.fail(DEAD, progressed=True) is None  # the next request found nobody there
    assert three.servers.pick(BLOB) is three.second


def test_of_a_round_of_servers_that_ask_for_a_pause_the_shortest_counts() -> None:
    three = Three()
    shortest = RateLimited("busy", status=503, retry_after=40)
    assert three.fail(RateLimited("wait", retry_after=3600)) is None
    assert three.fail(shortest) is None
    assert three.fail(RateLimited("wait", retry_after=50)) is shortest


@pytest.mark.parametrize("error", [DEAD, ServerError("busy", status=503), RateLimited("wait", retry_after=1)])
def test_too_many_is_no_reason_to_leave_a_server_that_serves_others(error: LayerteeError) -> None:
    three = Three()
    with three.first.arriving():
        assert three.fail(error) is error
        assert three.servers.pick(BLOB) is three.first
    assert three.fail(error) is None
    assert three.servers.pick(BLOB) is three.second


def test_a_server_that_asks_for_much_patience_is_left_though_it_serves_others() -> None:
    three = Three()
    with three.first.arriving():
        assert three.fail(RateLimited("wait", retry_after=PATIENCE_S)) is not None
        assert three.servers.pick(BLOB) is three.first
        assert three.fail(RateLimited("wait", retry_after=PATIENCE_S + 1)) is None
        assert three.servers.pick(BLOB) is three.second


def test_when_all_have_failed_a_round_is_over_and_what_may_pass_is_the_error() -> None:
    three = Three()
    slow = Timeout("too slow")
    assert three.fail(NOT_HERE) is None
    assert three.fail(slow) is None
    assert three.servers.pick(BLOB) is three.origin
    assert three.fail(Unauthorized("no login", status=401)) is slow
    assert slow.__notes__ == ["first.test/os: no such blob", "origin.test/os: no login"]
    assert three.order() == ["first", "second", "origin"]  # the two that failed, as they failed
    assert three.servers.pick(BLOB) is three.first  # a new round


def test_the_origin_has_the_last_word_where_nothing_may_pass() -> None:
    three = Three()
    refused = Unauthorized("no", status=403)
    assert three.fail(refused) is None
    assert three.fail(NOT_HERE) is None
    last = NotInRegistry("the origin has it not", status=404)
    assert three.fail(last) is last


def test_a_failure_that_is_told_late_does_not_move_the_round_on() -> None:
    three = Three()
    assert three.fail(DEAD) is None
    for _ in range(3):  # its other connections
        assert three.servers.failed(three.first, BLOB, BROKEN, progressed=False) is None
        assert three.servers.pick(BLOB) is three.second


def test_one_server_is_asked_again_and_again() -> None:
    servers = Servers([named("only", origin=True)])
    for error in (*FAULTS, *OF_ONE_BLOB):
        assert servers.failed(servers.pick(BLOB), BLOB, error, progressed=False) is error
    assert not servers.has_other(servers.pick(BLOB), BLOB)
    assert not servers.wrong(BLOB, ["only.test/os"])
    with pytest.raises(ValueError, match="at least one"):
        Servers([])


def test_who_sent_wrong_bytes_is_not_asked_for_them_again() -> None:
    three = Three()
    assert three.servers.wrong(BLOB, ["first.test/os"])
    assert three.servers.pick(BLOB) is three.second
    assert three.order() == ["second", "origin", "first"]
    assert three.servers.wrong(BLOB, ["second.test/os", "origin.test/os"])  # put together from both
    assert three.servers.pick(BLOB) is three.origin
    assert not three.servers.wrong(BLOB, ["origin.test/os"])  # all of it, alone: the blob itself is wrong


def test_where_nobody_has_sent_a_byte_there_is_nobody_else_to_ask() -> None:
    three = Three()
    assert not three.servers.wrong(BLOB, [])
    assert three.order() == ["first", "second", "origin"]


def test_a_server_that_does_not_have_the_image_is_asked_after_those_that_do() -> None:
    three = Three()
    three.servers.behind(three.first)
    assert three.order() == ["second", "origin", "first"]
    assert three.standing.rank("first.test") == 0  # other images are not concerned
    three.servers.leave(three.second)
    assert three.order() == ["origin", "first", "second"]


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([*FAULTS, *OF_ONE_BLOB]), st.booleans()), max_size=40
    )
)
def test_whatever_fails_a_round_asks_each_server_once(
    failures: list[tuple[int, LayerteeError, bool]],
) -> None:
    three = Three()
    asked: set[str] = set()
    for blob, error, progressed in failures:
        if blob:  # failures of other blobs come in between, and must not change the round
            three.fail(error, blob + 1, progressed=progressed)
            continue
        server = three.servers.pick(BLOB)
        assert server.name not in asked
        judged = three.servers.failed(server, BLOB, error, progressed=progressed)
        if isinstance(error, TruncatedBody) and progressed:
            assert judged is error
            continue
        asked.add(server.name)
        assert (judged is None) == (len(asked) < 3)
        if judged is not None:
            asked.clear()


# --- the tar that is in a blob ---------------------------------------------------------------------

TAR = DiffID(str(digest_number(7)))
SOUGHT = Sought(TAR, 1000)


def having(name: str, size: int | None, asked: list[str]) -> Server:
    async def find(diff_id: DiffID, limit: int, said: str | None = None, *, tries: int = 1) -> int | None:
        assert (diff_id, limit, said, tries) == (TAR, 1000, None, 1)
        asked.append(name)
        return size

    async def open_blob(blob: Descriptor, start: int, stop: int | None) -> Body:
        raise TruncatedBody(f"{name} was opened", got=start, want=blob.size)

    return Server(f"{name}.test/os", f"{name}.test", open_blob, name == "origin", find)


def opened(server: Server) -> str:
    """What the request for the tar ends in."""
    tar = Descriptor("application/vnd.oci.image.layer.v1.tar", Digest(str(TAR)), 300)
    with pytest.raises((NotInRegistry, TruncatedBody)) as caught:
        asyncio.run(server.ask(tar, 5, None))
    return str(caught.value)


def test_a_tar_is_asked_for_in_the_same_order_and_only_where_it_is() -> None:
    asked: list[str] = []
    sizes = {"first": 300, "second": None, "third": 301, "origin": 300}
    servers = Servers([having(name, size, asked) for name, size in sizes.items()])
    servers.leave(servers.in_order[0])
    found = servers.with_tar(SOUGHT, 300)
    assert found is not None
    order = [server.name.partition(".")[0] for server in found.in_order]
    assert order == ["second", "third", "origin", "first"]
    assert [opened(server) for server in found.in_order] == [
        f"the tar {TAR} is not there, at second.test/os",
        f"the tar {TAR} is of 301 bytes there, at third.test/os",
        "origin was opened",
        "first was opened",
    ]
    assert asked == order


def test_a_tar_is_not_asked_for_where_it_was_had_in_vain() -> None:
    servers = Servers([having("first", 300, []), having("origin", 300, []), named("plain")])
    tried = Sought(TAR, 1000, {"first.test/os"})
    found = servers.with_tar(tried, 300)
    assert found is not None and [server.host for server in found.in_order] == ["origin.test"]
    tried.not_at.add("origin.test/os")
    assert servers.with_tar(tried, 300) is None


def test_one_round_for_a_tar_is_enough_where_the_blob_may_be_elsewhere() -> None:
    servers = Servers([having("first", 300, []), named("origin", origin=True)])
    found = servers.with_tar(SOUGHT, 300)
    assert found is not None
    (only,) = found.in_order
    assert found.failed(only, BLOB, BROKEN, progressed=True) is BROKEN  # goes on where it was
    dead = ConnectFailed("connection refused")
    with pytest.raises(ConnectFailed):
        found.failed(only, BLOB, dead, progressed=False)
    assert [server.host for server in servers.in_order] == ["origin.test", "first.test"]


def test_a_server_that_serves_blobs_is_not_left_for_its_tar_when_it_says_too_many() -> None:
    servers = Servers([having("first", 300, []), named("origin", origin=True)])
    found = servers.with_tar(SOUGHT, 300)
    assert found is not None
    busy = RateLimited("wait", status=429, retry_after=1)
    with servers.in_order[0].arriving():
        assert found.failed(found.in_order[0], BLOB, busy, progressed=False) is busy
    with pytest.raises(RateLimited):
        found.failed(found.in_order[0], BLOB, busy, progressed=False)


def test_the_only_server_of_an_image_is_given_time_for_its_tar() -> None:
    found = Servers([having("origin", 300, [])]).with_tar(SOUGHT, 300)
    assert found is not None
    assert found.failed(found.in_order[0], BLOB, DEAD, progressed=False) is DEAD
