"""Signatures are looked for where containers/image looks for them, all of them, and not for ever."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from layertee.config.logins import Credentials, Login
from layertee.config.registries_d import SignaturePlaces
from layertee.errors import (
    ConnectFailed,
    LayerteeError,
    NotInRegistry,
    PolicyRefused,
    RedirectRefused,
    RegistriesConfError,
    RegistryError,
    ServerError,
    Timeout,
    TransportError,
    Unauthorized,
)
from layertee.image.digest import Digest
from layertee.image.reference import Reference, parse_reference
from layertee.registry.client import Registry
from layertee.registry.http import TLSPolicy
from layertee.signatures.signature import (
    MAX_SIGNATURE,
    Attachment,
    Signature,
    SignatureSource,
    SimpleSignature,
)
from layertee.signatures.stores import DirectorySignatures, LookasideSignatures, RegistrySignatures
from tests.support.fakes.transport import Answer, FakeTransport, Request, Script, json_answer

DIGEST = Digest.of(b"manifest")
OTHER = Digest.of(b"other")
LONG = Digest("sha512:" + "a" * 128)
MISSING = Answer(404, b"not here")
BASE = "https://sigs.example/top"
HOME = f"{BASE}/a/b@sha256={DIGEST.hex}/signature-"


def image(name: str = "quay.io/a/b:1") -> Reference:
    found = parse_reference(name)
    assert isinstance(found, Reference)
    return found


def blob(number: int) -> bytes:
    return b"\x90" + str(number).encode()


def found(source: SignatureSource, digest: Digest = DIGEST) -> list[Signature]:
    return asyncio.run(source.signatures(digest))


class Web:
    """A lookaside server with certain answers for signature-1, signature-2 and so on."""

    def __init__(self, *answers: Script, base: str = BASE, name: str = "quay.io/a/b:1") -> None:
        self.transport = FakeTransport()
        self.waited: list[float] = []
        for number, answer in enumerate(answers, 1):
            self.transport.on(f"{HOME}{number}", answer)
        places = SignaturePlaces(base, Path("/etc/some.yaml"), False, None)
        self.source = LookasideSignatures(self.transport, image(name), places, sleep=self._sleep, limit_s=30)

    async def _sleep(self, seconds: float) -> None:
        self.waited.append(seconds)

    def urls(self) -> list[str]:
        return [request.url for request in self.transport.requests]


def ok(content: bytes, **headers: str) -> Answer:
    return Answer(200, content, headers)


# --- lookaside: http ----------------------------------------------------------


def test_signatures_are_asked_for_until_one_is_missing() -> None:
    web = Web(ok(blob(1)), ok(b"\0simple-signing\n" + blob(2)), MISSING, ok(blob(4)))
    assert found(web.source) == [SimpleSignature(blob(1), f"{HOME}1"), SimpleSignature(blob(2), f"{HOME}2")]
    assert web.urls() == [f"{HOME}{number}" for number in (1, 2, 3)]
    for request in web.transport.requests:
        assert request.authorization is None
        assert request.near is None
    assert found(Web(MISSING).source) == []


def test_those_of_sigstore_are_found_there_too() -> None:
    raw = json.dumps({"mimeType": "x", "payload": "e30=", "annotations": {}}).encode()
    web = Web(ok(b"\0sigstore-json\n" + raw), MISSING)
    assert found(web.source) == [Attachment("x", b"{}", {}, f"{HOME}1")]


@pytest.mark.parametrize(
    ("base", "name", "url"),
    [
        ("https://s.example", "quay.io/a:1", "https://s.example/a@{}/signature-1"),
        ("https://s.example/", "quay.io/a:1", "https://s.example//a@{}/signature-1"),
        ("http://s.example:8080/x/y", "quay.io/a/b/c:1", "http://s.example:8080/x/y/a/b/c@{}/signature-1"),
        ("https://s.example/x", "docker.io/library/a:1", "https://s.example/x/library/a@{}/signature-1"),
        ("https://s.example/x?k=v&l=w", "quay.io/a:1", "https://s.example/x/a@{}/signature-1?k=v&l=w"),
        ("https://s.example/x#y", "quay.io/a:1", "https://s.example/x/a@{}/signature-1"),
        ("https://s.example/%78%2Fy%20z", "quay.io/a:1", "https://s.example/x/y%20z/a@{}/signature-1"),
        (
            "https://s.example/x$&+,:;=@~-._",
            "quay.io/a:1",
            "https://s.example/x$&+,:;=@~-._/a@{}/signature-1",
        ),
        ("https://s.example/x'(*)!", "quay.io/a:1", "https://s.example/x%27%28%2A%29%21/a@{}/signature-1"),
        ("HTTPS://S.example/x", "quay.io/a:1", "https://S.example/x/a@{}/signature-1"),
    ],
)
def test_where_they_are_is_the_base_the_repository_and_the_digest(base: str, name: str, url: str) -> None:
    for digest in (DIGEST, LONG):
        web = Web(base=base, name=name)
        wanted = url.format(f"{digest.algorithm}={digest.hex}")
        web.transport.on(wanted, MISSING)
        assert found(web.source, digest) == []
        assert web.urls() == [wanted]


@pytest.mark.parametrize(
    "base",
    [
        *("", "sigs.example/x", "/x", "ftp://s.example/x", "https:", "https:///x", "https://s.example:0/x"),
        *("https://s.example:99999/x", "https://s ex/x", "https://s.example/a b", "https://s.example/\tx"),
        *("https://s.example/%zz", "https://s.example/%", "https://s.example/%00", "https://s.example\\@x/"),
        *("file:x", "file://x/y", "file:", "file:///%00", "https://[::1/x"),
    ],
)
def test_what_is_no_url_is_an_error_that_names_the_file(base: str) -> None:
    with pytest.raises(RegistriesConfError, match=r"/etc/some\.yaml: lookaside "):
        Web(base=base)


def test_a_password_in_the_url_is_not_told() -> None:
    transport = FakeTransport()
    places = SignaturePlaces("https://me:hunter2@s.example/x?token=hunter2", None, False, None)
    url = f"https://me:hunter2@s.example/x/a/b@sha256={DIGEST.hex}/signature-1?token=hunter2"
    source = LookasideSignatures(transport, image(), places)
    transport.on(url, Answer(403))
    with pytest.raises(LayerteeError) as caught:
        found(source)
    assert "hunter2" not in str(caught.value)
    transport.on(url, ok(b"bad"))
    with pytest.raises(PolicyRefused) as refused:
        found(source)
    assert "hunter2" not in str(refused.value)
    transport.on(url, ok(blob(1)))
    transport.on(url.replace("signature-1", "signature-2"), MISSING)
    assert "hunter2" not in found(source)[0].place


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(401), Unauthorized),
        (Answer(403), Unauthorized),
        (Answer(410), RegistryError),
        (Answer(204), RegistryError),
        (Answer(206, blob(2)), RegistryError),
        (Answer(304), RegistryError),
        (Answer(500), ServerError),
        (ConnectFailed("no route"), ConnectFailed),
        (ok(b""), PolicyRefused),
        (ok(b"<html>not found</html>"), PolicyRefused),
        (ok(b"\x90" + bytes(MAX_SIGNATURE)), PolicyRefused),
        (ok(b"\x1f\x8bdamaged", **{"Content-Encoding": "gzip"}), PolicyRefused),
    ],
)
def test_anything_but_a_signature_or_404_is_an_error(answer: Script, error: type[LayerteeError]) -> None:
    """Even after one that may be good: what was not read may be what counts."""
    with pytest.raises(error):
        found(Web(ok(blob(1)), answer).source)


def test_a_server_that_fails_at_first_is_asked_again() -> None:
    web = Web(MISSING)
    web.transport.on(f"{HOME}1", Answer(503), ConnectFailed("once"), ok(blob(1)))
    web.transport.on(f"{HOME}2", MISSING)
    assert found(web.source) == [SimpleSignature(blob(1), f"{HOME}1")]
    assert len(web.waited) == 2


def test_127_signatures_are_taken_and_128_are_not() -> None:
    for n_there, fits in ((127, True), (128, False), (10_000, False)):
        web = Web(*[ok(blob(1))] * n_there, MISSING)
        if fits:
            assert len(found(web.source)) == 127
            continue
        with pytest.raises(PolicyRefused, match="128 signatures or more"):
            found(web.source)
        assert len(web.urls()) == 128


def test_all_together_are_bounded() -> None:
    large = ok(b"\x90" + bytes(MAX_SIGNATURE - 1))
    assert len(found(Web(*[large] * 4, MISSING).source)) == 4
    with pytest.raises(PolicyRefused, match="are more than 16777216 bytes"):
        found(Web(*[large] * 5, MISSING).source)


class Stalled(FakeTransport):
    """It takes every request, and answers none."""

    async def _answer(self, request: Request) -> Answer:
        self.requests.append(request)
        await asyncio.Event().wait()
        raise AssertionError


def test_a_server_that_stalls_is_given_up() -> None:
    transport, places = Stalled(), SignaturePlaces(BASE, None, False, None)
    lookaside = LookasideSignatures(transport, image(), places, limit_s=0.01)
    registry = Registry(transport, image(), Credentials.no_credentials(), tls=TLSPolicy())
    for source in (lookaside, RegistrySignatures(registry, image(), lookaside, limit_s=0.01)):
        with pytest.raises(Timeout, match=r"the signatures did not come within 0\.01 s"):
            found(source)
    assert len(transport.requests) == 2


def test_redirects_are_followed_and_carry_nothing() -> None:
    web = Web(Answer(302, headers={"Location": "/elsewhere"}), MISSING)
    web.transport.on(
        "https://sigs.example/elsewhere", Answer(307, headers={"Location": "https://cdn.example/x"})
    )
    web.transport.on("https://cdn.example/x", ok(blob(1)))
    assert found(web.source) == [SimpleSignature(blob(1), f"{HOME}1")]
    assert [request.near for request in web.transport.requests] == [None, None, "sigs.example", None]


@pytest.mark.parametrize(
    "location",
    [
        "http://sigs.example/x",
        "file:///etc/passwd",
        "https://127.0.0.1/x",
        "https://169.254.169.254/x",
        f"{HOME}1",
    ],
)
def test_redirects_lead_nowhere_where_they_must_not(location: str) -> None:
    with pytest.raises(RedirectRefused):
        found(Web(Answer(302, headers={"Location": location})).source)


def test_the_policy_of_tls_is_for_its_own_server_only() -> None:
    transport, waived = FakeTransport(), TLSPolicy(verify=False)
    places = SignaturePlaces(BASE, None, False, None)
    transport.on(f"{HOME}1", Answer(302, headers={"Location": "https://cdn.example/x"}))
    transport.on("https://cdn.example/x", MISSING)
    assert found(LookasideSignatures(transport, image(), places, tls=waived)) == []
    assert [request.tls for request in transport.requests] == [waived, None]


# --- lookaside: files ---------------------------------------------------------


class Files:
    """Signatures in a directory, and their source."""

    def __init__(self, root: Path) -> None:
        self.home = root / f"a/b@sha256={DIGEST.hex}"
        self.home.mkdir(parents=True)
        places = SignaturePlaces(f"file://{root}", None, False, None)
        self.source = LookasideSignatures(FakeTransport(), image(), places)

    def write(self, *contents: bytes) -> None:
        for number, content in enumerate(contents, 1):
            (self.home / f"signature-{number}").write_bytes(content)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "sigs")


def test_files_are_read_until_one_is_missing(files: Files) -> None:
    assert found(files.source) == []
    files.write(blob(1), blob(2))
    (files.home / "signature-4").write_bytes(blob(4))
    wanted = [SimpleSignature(blob(n), str(files.home / f"signature-{n}")) for n in (1, 2)]
    assert found(files.source) == wanted
    assert found(files.source, OTHER) == []


def test_a_path_can_have_any_characters(tmp_path: Path) -> None:
    home = tmp_path / "a b%/ü" / f"a/b@sha256={DIGEST.hex}"
    home.mkdir(parents=True)
    (home / "signature-1").write_bytes(blob(1))
    for url in (f"file://{tmp_path}/a%20b%25/ü", f"file://localhost{tmp_path}/a%20b%25/%C3%BC"):
        source = LookasideSignatures(FakeTransport(), image(), SignaturePlaces(url, None, False, None))
        assert len(found(source)) == 1


def test_what_is_no_file_or_cannot_be_read_is_an_error(files: Files) -> None:
    files.write(blob(1))
    second = files.home / "signature-2"
    second.mkdir()
    for _ in range(2):
        with pytest.raises(PolicyRefused, match=f"{second} cannot be read: it is not a regular file"):
            found(files.source)
        second.rmdir() if second.is_dir() else second.unlink()
        os.mkfifo(second)
    second.unlink()
    second.symlink_to(second)
    with pytest.raises(PolicyRefused, match="Too many levels of symbolic links"):
        found(files.source)
    second.unlink()
    second.symlink_to("nowhere")
    assert len(found(files.source)) == 1


def test_a_file_on_the_way_is_an_error(files: Files) -> None:
    files.home.rmdir()
    files.home.write_bytes(b"")
    with pytest.raises(PolicyRefused, match="Not a directory"):
        found(files.source)


def test_large_and_many_files_are_refused(files: Files) -> None:
    files.write(b"\x90" + bytes(MAX_SIGNATURE))
    with pytest.raises(PolicyRefused, match="larger than"):
        found(files.source)
    files.write(*[blob(1)] * 128)
    with pytest.raises(PolicyRefused, match="128 signatures or more"):
        found(files.source)
    (files.home / "signature-128").unlink()
    assert len(found(files.source)) == 127


# --- dir: ---------------------------------------------------------------------


def test_a_directory_has_them_beside_its_manifests(tmp_path: Path) -> None:
    source = DirectorySignatures(tmp_path, DIGEST)
    assert found(source) == []
    names = ("signature-1", "signature-2", f"{OTHER.hex}.signature-1", f"sha512-{LONG.hex}.signature-1")
    for name in names:
        (tmp_path / name).write_bytes(b"\x90" + name.encode())
    places = [[each.place for each in found(source, digest)] for digest in (DIGEST, OTHER, LONG)]
    assert places == [[str(tmp_path / name) for name in some] for some in (names[:2], names[2:3], names[3:])]
    (tmp_path / "signature-2").write_bytes(b"bad")
    with pytest.raises(PolicyRefused, match="of no known kind"):
        found(source)


@pytest.mark.parametrize(
    ("said", "fits"),
    [
        *(("1.1\n", True), ("1.2\n", True), ("0.9\n", True), ("1.3\n", False), ("2.0\n", False)),
        *(("1.1", False), ("1.1\n\n", False), ("01.1\n", False), ("1.10\n", False), ("", False)),
        ("1." + "0" * 5000 + "\n", False),
    ],
)
def test_a_directory_has_a_version_that_is_known(tmp_path: Path, said: str, fits: bool) -> None:
    (tmp_path / "signature-1").write_bytes(blob(1))
    (tmp_path / "version").write_text(f"Directory Transport Version: {said}")
    source = DirectorySignatures(tmp_path, DIGEST)
    if fits:
        assert len(found(source)) == 1
        return
    with pytest.raises(PolicyRefused, match="no version that is known"):
        found(source)


# --- the registry itself ------------------------------------------------------


class Extended:
    """A registry that may have signatures, and a place that has one, too."""

    API = "https://quay.io"
    LIST = f"{API}/extensions/v2/a/b/signatures/{DIGEST}"

    def __init__(self, ping: Answer, *lists: Script, login: Login | None = None) -> None:
        self.transport = FakeTransport()
        self.transport.on(f"{self.API}/v2/", ping)
        if lists:
            self.transport.on(self.LIST, *lists)
        credentials = Credentials(login=login) if login else Credentials.no_credentials()
        registry = Registry(self.transport, image(), credentials, tls=TLSPolicy(), sleep=_at_once)
        self.otherwise = Web(ok(blob(7)), MISSING)
        self.source = RegistrySignatures(registry, image(), self.otherwise.source)


async def _at_once(seconds: float) -> None:
    """In place of a wait."""


def listed(*entries: Mapping[str, Any]) -> Answer:
    return json_answer({"signatures": list(entries)})


def entry(blob: bytes, /, **changes: object) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "name": f"{DIGEST}@one",
        "type": "atomic",
        "content": base64.b64encode(blob).decode(),
    } | changes


SAYS_SO = Answer(200, b"{}", {"X-Registry-Supports-Signatures": "1"})


def test_a_registry_that_has_them_is_asked_instead() -> None:
    rig = Extended(SAYS_SO, listed(entry(blob(1)), entry(b"anything")))
    places = [f"quay.io/extensions/v2/a/b/signatures/{DIGEST}, entry {n}" for n in (1, 2)]
    wanted = [SimpleSignature(blob(1), places[0]), SimpleSignature(b"anything", places[1])]
    assert found(rig.source) == wanted
    assert rig.otherwise.urls() == []
    assert found(rig.source) == wanted
    assert [request.url for request in rig.transport.requests] == [f"{rig.API}/v2/", rig.LIST, rig.LIST]


def test_a_proxy_is_told_whose_registry_is_meant() -> None:
    transport = FakeTransport()
    transport.on("https://quay.io/v2/?ns=other.io", SAYS_SO)
    transport.on(f"{Extended.LIST}?ns=other.io", listed(entry(blob(1))))
    stranger = Credentials.no_credentials()
    registry = Registry(transport, image(), stranger, tls=TLSPolicy(), namespace="other.io", sleep=_at_once)
    source = RegistrySignatures(registry, image(), Web(MISSING).source)
    assert len(found(source)) == 1


def test_an_answer_that_wants_a_login_says_it_as_well() -> None:
    headers = {"WWW-Authenticate": 'Basic realm="x"', "X-Registry-Supports-Signatures": "1"}
    login = Login("me", "secret")
    rig = Extended(Answer(401, b"", headers), Answer(401, b"", headers), listed(entry(blob(1))), login=login)
    assert len(found(rig.source)) == 1
    ping, *lists = rig.transport.requests
    assert ping.authorization is None
    assert lists[-1].authorization is not None


@pytest.mark.parametrize("said", [None, "0", "", "true", "1 "])
def test_another_registry_is_not_asked(said: str | None) -> None:
    headers = {} if said is None else {"X-Registry-Supports-Signatures": said}
    rig = Extended(Answer(401, b"", headers))
    assert found(rig.source) == [SimpleSignature(blob(7), f"{HOME}1")]
    assert [request.url for request in rig.transport.requests] == [f"{rig.API}/v2/"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [(Answer(404), NotInRegistry), (Answer(403), Unauthorized), (Answer(500), ServerError)],
)
def test_a_registry_that_cannot_say_is_an_error(answer: Answer, error: type[LayerteeError]) -> None:
    rig = Extended(answer)
    with pytest.raises(error):
        found(rig.source)
    assert rig.otherwise.urls() == []
    rig = Extended(SAYS_SO, answer)
    with pytest.raises(error):
        found(rig.source)
    assert rig.otherwise.urls() == []


def test_where_a_registry_is_found_may_be_elsewhere() -> None:
    rig = Extended(Answer(301, headers={"Location": "/v2/home"}), listed(entry(blob(1))))
    rig.transport.on(f"{rig.API}/v2/home", SAYS_SO)
    assert len(found(rig.source)) == 1
    for location in ("http://quay.io/v2/", "https://127.0.0.1/v2/", "/v2/"):
        with pytest.raises(TransportError):
            found(Extended(Answer(301, headers={"Location": location})).source)


def test_signatures_of_other_kinds_in_a_list_are_passed_over() -> None:
    others = [entry(blob(1), schemaVersion=1), entry(blob(1), type="x"), entry(blob(1), type="Atomic"), {}]
    values: list[dict[str, object]] = [{"signatures": each} for each in (others, [], None)]
    for value in (*values, {}, {"other": 1}):
        assert found(Extended(SAYS_SO, json_answer(value)).source) == []
    assert len(found(Extended(SAYS_SO, listed(*others, entry(blob(1)))).source)) == 1


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"[]", b"null", b'{"signatures": 1}', b'{"signatures": [1]}', b'{"Signatures": []}'),
        b'{"signatures": [], "signatures": []}',
        *(
            json.dumps({"signatures": [entry(b"", **change)]}).encode()
            for change in ({"content": None}, {"content": "="}, {"content": "e30=\n"}, {"Type": "atomic"})
        ),
    ],
)
def test_a_list_that_makes_no_sense_is_refused(body: bytes) -> None:
    with pytest.raises(PolicyRefused, match=f"the signatures of quay.io/a/b@{DIGEST}"):
        found(Extended(SAYS_SO, ok(body)).source)


def test_a_list_is_bounded() -> None:
    assert len(found(Extended(SAYS_SO, listed(*[entry(b"x")] * 128)).source)) == 128
    with pytest.raises(PolicyRefused, match="more than 128 signatures"):
        found(Extended(SAYS_SO, listed(*[entry(b"x")] * 129)).source)
    with pytest.raises(LayerteeError, match="larger than"):
        found(Extended(SAYS_SO, ok(b"{}" + b" " * (4 << 20))).source)
