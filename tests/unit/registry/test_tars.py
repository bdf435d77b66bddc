"""What an endpoint is asked about tars, how often, and what of its answers counts. No network."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from layertee.errors import ConnectFailed, LayerteeError, RegistryError
from layertee.image.document import DiffID, Digest
from layertee.registry.http import Response
from layertee.registry.tars import HOLDS, KNOWS, Tars
from tests.support.compress import digest_number

LIMIT = 1000
ONE, TWO = (DiffID(str(digest_number(n))) for n in (1, 2))
BLOB = digest_number(3)


def answer(status: int = 200, **fields: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    return Response(status, "http://near.test/", CIMultiDictProxy(CIMultiDict(named)))


class Endpoint:
    """Answers HEAD from a table, with 404 for what is not in it; remembers what it was asked."""

    def __init__(self, answers: dict[str, Response | LayerteeError] | None = None) -> None:
        self.answers = answers or {}
        self.asked: list[str] = []
        self.slept: list[float] = []
        self.silent = False
        self.tars = Tars("near.test/os", self._head, sleep=self._sleep, answer_s=0.01)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def _head(self, blob: Digest) -> Response:
        self.asked.append(blob)
        await asyncio.sleep(60 if self.silent else 0)
        found = self.answers.get(blob, answer(404))
        if isinstance(found, LayerteeError):
            raise found
        return found

    def marked(self) -> Endpoint:
        self.tars.listen(Response(200, "", CIMultiDictProxy(CIMultiDict({KNOWS: "1"}))))
        return self


def run(*asking: Callable[[], Awaitable[int | None]]) -> list[int | None]:
    """All at once."""

    async def main() -> list[int | None]:
        return list(await asyncio.gather(*(ask() for ask in asking)))

    return asyncio.run(main())


def test_a_tar_is_asked_for_once_whoever_asks() -> None:
    endpoint = Endpoint({ONE: answer(Content_Length="300")}).marked()
    assert run(*[lambda: endpoint.tars.size(ONE, LIMIT)] * 5) == [300] * 5
    assert endpoint.asked == [ONE]


@pytest.mark.parametrize("length", ["0", "1001", "-5", "3e2", "", "9" * 17, "300, 300"])
def test_a_size_that_cannot_be_is_none(length: str) -> None:
    endpoint = Endpoint({ONE: answer(Content_Length=length)})
    assert run(lambda: endpoint.tars.size(ONE, LIMIT)) == [None]


def test_an_answer_without_a_size_and_a_refusal_are_none_and_remembered() -> None:
    endpoint = Endpoint({ONE: answer(), TWO: RegistryError("not so", status=405)}).marked()
    for _ in range(2):
        asking = [lambda diff_id=diff_id: endpoint.tars.size(diff_id, LIMIT) for diff_id in (ONE, TWO)]
        assert run(*asking) == [None] * 2
    assert endpoint.asked == [ONE, TWO]


@pytest.mark.parametrize(("tries", "slept"), [(1, 0), (2, 1)])
def test_what_may_pass_is_asked_for_again_but_not_for_ever(tries: int, slept: int) -> None:
    endpoint = Endpoint({ONE: ConnectFailed("refused")}).marked()
    assert run(lambda: endpoint.tars.size(ONE, LIMIT, tries=tries)) == [None]
    assert (len(endpoint.asked), len(endpoint.slept)) == (tries, slept)
    endpoint.answers[TWO] = answer(Content_Length="2")
    assert run(lambda: endpoint.tars.size(TWO, LIMIT)) == [2]
    for _ in range(5):
        assert run(lambda: endpoint.tars.size(ONE, LIMIT, tries=tries)) == [None]
    assert len(endpoint.asked) == 3 * tries + 1


def test_what_has_failed_before_may_be_there() -> None:
    endpoint = Endpoint({ONE: ConnectFailed("refused")})
    assert run(lambda: endpoint.tars.size(ONE, LIMIT, tries=1)) == [None]
    endpoint.answers[ONE] = answer(Content_Length="300")
    assert run(lambda: endpoint.tars.size(ONE, LIMIT, tries=1)) == [300]


def test_one_that_never_heard_of_diff_ids_is_asked_once_in_all() -> None:
    endpoint = Endpoint()
    asking = [lambda diff_id=diff_id: endpoint.tars.size(diff_id, LIMIT) for diff_id in (ONE, TWO, ONE)]
    assert run(*asking) == [None] * 3
    assert endpoint.asked == [ONE]


def test_one_that_has_the_first_tar_is_asked_for_others() -> None:
    endpoint = Endpoint({ONE: answer(Content_Length="1"), TWO: answer(Content_Length="2")})
    assert run(*[lambda diff_id=d: endpoint.tars.size(diff_id, LIMIT) for d in (ONE, TWO)]) == [1, 2]


def test_one_that_knows_diff_ids_may_lack_the_first_tar() -> None:
    endpoint = Endpoint({TWO: answer(Content_Length="2")}).marked()
    assert run(*[lambda diff_id=d: endpoint.tars.size(diff_id, LIMIT) for d in (ONE, TWO)]) == [None, 2]


def test_what_it_says_of_a_blob_marks_it_and_has_to_be_what_the_image_says() -> None:
    endpoint = Endpoint({ONE: answer(Content_Length="300")})
    assert run(lambda: endpoint.tars.size(ONE, LIMIT, TWO)) == [None]
    assert (endpoint.asked, endpoint.tars.is_known) == ([], True)
    assert run(lambda: endpoint.tars.size(ONE, LIMIT, f" {ONE} ")) == [300]


@pytest.mark.parametrize("said", [None, ONE, "nonsense"])
def test_a_blob_that_is_gone_is_told_with_what_was_said_of_it(said: str | None) -> None:
    endpoint = Endpoint({BLOB: answer(404, **({HOLDS.replace("-", "_"): said} if said else {}))})
    lacks = asyncio.run(endpoint.tars.lacks(BLOB))
    assert lacks is not None and lacks.said == said
    assert endpoint.tars.is_known is (said is not None)


def test_a_blob_that_is_there_is_not_lacking_and_a_failure_is_neither() -> None:
    assert asyncio.run(Endpoint({BLOB: answer()}).tars.lacks(BLOB)) is None
    with pytest.raises(ConnectFailed):
        asyncio.run(Endpoint({BLOB: ConnectFailed("refused")}).tars.lacks(BLOB))


def test_an_endpoint_that_does_not_answer_is_asked_no_more() -> None:
    endpoint = Endpoint({TWO: answer(Content_Length="2")}).marked()
    endpoint.silent = True
    assert run(lambda: endpoint.tars.size(ONE, LIMIT)) == [None]
    endpoint.silent = False
    assert run(*[lambda: endpoint.tars.size(TWO, LIMIT)] * 2) == [None] * 2
    assert endpoint.asked == [ONE]
