"""signedBy beside the newest containers/image: never accepted here where it refuses.

Its build for tests has an OpenPGP of its own in place of GnuPG's library. What the two think of damaged
messages differs, so of those only this is compared: what counts as signed.
"""

from __future__ import annotations

import base64
import itertools
import json
import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from layertee.config.policyfile import parse_policy
from layertee.config.requirements import Identity, IdentityKind, SignedBy
from layertee.errors import LayerteeError, PolicyRefused
from layertee.image.digest import Digest
from layertee.image.reference import Reference, parse_reference
from layertee.signatures.identity import accepts
from layertee.signatures.openpgp.gpg import Keys, keyring
from layertee.signatures.openpgp.simple import verify_signed_by
from layertee.signatures.payload import PayloadType, parse_payload
from layertee.signatures.signature import SimpleSignature, Subject
from layertee.sync import run
from tests.support.imagepolicy import ImagePolicy, imagepolicy
from tests.support.openpgp import Signer, payload, signer
from tests.support.rig.prebuild import NotBuilt, program

pytestmark = [pytest.mark.slow, pytest.mark.builds("imagepolicy")]

N_NAMES = 20_000
N_PAYLOADS = 800
RAW = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "x", "digest": f"sha256:{'0' * 64}", "size": 1},
        "layers": [],
    }
).encode()
DIGEST = Digest.of(RAW)
PIN = f"@{DIGEST}"
NAME = "quay.io/a/b:1"
EXACT = {"type": "matchExact"}


@dataclass(frozen=True)
class Rig:
    """A key, signatures by it, and the judge."""

    signer: Signer
    public: bytes
    peer: ImagePolicy

    def policy(self, identity: dict[str, Any], keys: bytes | None = None) -> dict[str, Any]:
        """Everything has to be signed by the key."""
        data = base64.b64encode(keys or self.public).decode()
        wanted = {"type": "signedBy", "keyType": "GPGKeys", "keyData": data, "signedIdentity": identity}
        return {"default": [wanted]}

    def taken(
        self, signed: bytes, identity: dict[str, Any], name: str = NAME, keys: bytes | None = None
    ) -> bool:
        """By containers/image."""
        return self.peer.refusal(self.policy(identity, keys), name, RAW, [signed]) is None

    def signed(self, contents: Sequence[bytes]) -> list[bytes]:
        """Each, by the key."""
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda content: self.signer.sign(content, "key"), contents))


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    try:
        judge = program("imagepolicy")
    except NotBuilt as exc:
        pytest.skip(str(exc))
    with signer() as home, imagepolicy(judge) as peer:
        home.key("key")
        yield Rig(home, home.public("key"), peer)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def subject(name: str = NAME) -> Subject:
    found = parse_reference(f"docker://{name}") if name else None
    assert found is None or isinstance(found, Reference)
    return Subject(RAW, DIGEST, found)


def requirement(rig: Rig, identity: dict[str, Any], keys: bytes | None = None) -> SignedBy:
    """As it is read from a policy.json."""
    policy = json.dumps(rig.policy(identity, keys)).encode()
    (found,), _ = parse_policy(policy, "policy.json")
    assert isinstance(found, SignedBy)
    return found


# --- names --------------------------------------------------------------------


HOSTS = (
    "quay.io/",
    "docker.io/",
    "index.docker.io/",
    "localhost/",
    "localhost:5000/",
    "x.y:80/",
    "H.io/",
    "",
)
PARTS = (
    "a",
    "b",
    "library",
    "a_b",
    "a__b",
    "a___b",
    "a-b",
    "a--b",
    "c.d",
    "c..d",
    "A",
    "0",
    "-a",
    "a-",
    "é",
    "",
)
TAGS = ("", ":1", ":latest", ":T.A-G_", ":-x", ":" + "x" * 128, ":" + "x" * 129, ":")
PINS = (
    "",
    f"@sha256:{'a' * 64}",
    f"@sha512:{'b' * 128}",
    f"@sha256:{'A' * 64}",
    f"@md5:{'a' * 32}",
    "@",
    "@sha256:",
)
STRAYS = (*"/:@.-_ \n%?#[]", "//", "a" * 64, "a" * 250, "://", "\0", "docker.io")


def names() -> Iterator[str]:
    """Good ones, and such as are nearly so."""
    chosen = random.Random(12)
    for _ in range(N_NAMES):
        repository = "/".join(chosen.choice(PARTS) for _ in range(chosen.randrange(1, 4)))
        likely = chosen.random() < 0.5
        tag, pin = (chosen.choice(some[:3] if likely else some) for some in (TAGS, PINS))
        text = chosen.choice(HOSTS) + repository + tag + pin
        if chosen.random() < 0.2:
            at = chosen.randrange(len(text) + 1)
            text = text[:at] + chosen.choice(STRAYS) + text[at:]
        yield text


def test_a_text_is_a_name_here_exactly_where_it_is_one_there(rig: Rig) -> None:
    good = 0
    for text in names():
        there = rig.peer.named(text)
        for known, wanted in ((text, there is not None), (there or "quay.io/other", there is not None)):
            assert accepts(Identity(IdentityKind.EXACT_REPOSITORY, known), None, text) is wanted, text
        if there is not None:
            pinned = "@" in there or ":" in there.rpartition("/")[2]
            assert accepts(Identity(IdentityKind.EXACT_REFERENCE, there), None, text) is pinned, text
            good += 1
    assert N_NAMES // 20 < good < N_NAMES * 19 // 20


# --- identities ---------------------------------------------------------------


SIGNED = (
    *(
        "quay.io/a/b:1",
        "quay.io/a/b",
        "quay.io/a/b:2",
        "quay.io/a/c:1",
        f"quay.io/a/b{PIN}",
        f"quay.io/a/b:1{PIN}",
    ),
    *("docker.io/library/x:1", "x:1", "docker.io/x:1", "docker.io/a/x:1", "localhost:5000/a:1", "H.io/a:1"),
    *("mirror.example/quay/a/b:1", f"mirror.example/quay/a/b{PIN}", "mirror.example/quay", ""),
)
ASKED = tuple(
    name for name in SIGNED if name not in ("x:1", "docker.io/x:1", f"quay.io/a/b:1{PIN}", "H.io/a:1")
)
PREFIXES = (
    "mirror.example/quay",
    "mirror.example",
    "quay.io",
    "docker.io/library",
    "quay.io/a/b",
    "docker.io",
)


def identities() -> list[dict[str, Any]]:
    plain = [{"type": kind} for kind in ("matchExact", "matchRepoDigestOrExact", "matchRepository")]
    pinned = [name for name in SIGNED if ":" in name.rpartition("/")[2]]
    known = [
        *({"type": "exactReference", "dockerReference": name} for name in pinned),
        *(
            {"type": "exactRepository", "dockerRepository": name}
            for name in SIGNED
            if name and name not in pinned
        ),
    ]
    remapped = [
        {"type": "remapIdentity", "prefix": one, "signedPrefix": other}
        for one, other in itertools.product(PREFIXES, PREFIXES)
    ]
    return [*plain, *known, *remapped]


def test_identities_accept_the_same_names(rig: Rig) -> None:
    signed = dict(zip(SIGNED, rig.signed([payload(DIGEST, name) for name in SIGNED]), strict=True))
    seen: Counter[bool] = Counter()
    for identity in identities():
        here = requirement(rig, identity).identity
        for asked, name in itertools.product(ASKED, SIGNED):
            there = rig.taken(signed[name], identity, asked)
            assert accepts(here, subject(asked).name, name) is there, (identity, asked, name)
            seen[there] += 1
    assert seen[True] > 300 and seen[False] > 3000


# --- what is signed -----------------------------------------------------------


GOOD = payload(DIGEST, NAME, creator="c", timestamp=5)
# Each is taken there, and for no other reason refused here.
NARROWER = (
    "not UTF-8",
    "a lone surrogate",
    "a key appears twice",
    "nested deeper",
    "more than 20 digits",
    "sha512",
)
REPLACED = (
    *(
        (b'"optional"', b'"Optional"'),
        (b'"type"', b'"Type"'),
        (b'"type"', b'"t\\u0079pe"'),
        (b"atomic", b"Atomic"),
    ),
    *((b": 5", b": 5.0"), (b": 5", b": 5e0"), (b": 5", b": null"), (b": 5", b": 9223372036854775807")),
    *((b": 5", b": 1e19"), (b": 5", b": 1.5"), (b": 5", b": 1e999"), (b": 5", b': "5"'), (b": 5", b": -0")),
    *((b'"c"', b"null"), (b'"c"', b"7"), (b'"c"', b'"\x01"'), (b'"c"', b'"\\ud800"'), (b'"c"', b'"\xff"')),
    *(
        (b'{"creator"', b'{"x": %b, "creator"' % value)
        for value in (b"1e999", b"NaN", b"00", b"+1", b"1" * 30)
    ),
    *((b'{"creator"', b'{"x": %b, "creator"' % value) for value in (b'{"y":1,"y":2}', b"[" * 99 + b"]" * 99)),
    *((b'{"creator"', b'{"creator": "d", "creator"'), (b'{"creator"', b'{"Creator": 3, "creator"')),
    *((b"quay.io", b"quay\\u002eio"), (b"/a/b", b"\\/a\\/b"), (b"quay.io", b"quay\xff.io"), (b"{", b"\n{")),
    *(
        (b"}}", b"}} x"),
        (b"}}", b"}}}"),
        (b'"identity"', b'"identity": {}, "identity"'),
        (b'"quay.io/a/b:1"', b"null"),
    ),
    (str(DIGEST).encode(), f"sha384:{'a' * 96}".encode()),
)


def payloads() -> list[bytes]:
    """Those above, and what chance makes of a good one."""
    found = [GOOD, b"", b"null", GOOD[:-1], GOOD + b" ", GOOD + b"\0", b"\xef\xbb\xbf" + GOOD]
    for old, new in REPLACED:
        assert old in GOOD
        found += [GOOD.replace(old, new), GOOD.replace(old, new, 1)]
    chosen = random.Random(12)
    while len(found) < N_PAYLOADS:
        text = bytearray(GOOD)
        for _ in range(chosen.choice((1, 1, 2, 3))):
            at, character = chosen.randrange(len(text)), chosen.choice(b'{}[]":,\\ \n\t0eE.-nul\xc3\xff')
            match chosen.randrange(3):
                case 0:
                    text[at] = character
                case 1:
                    del text[at]
                case _:
                    text.insert(at, character)
        found.append(bytes(text))
    return found


def test_nothing_is_read_that_is_not_read_there(rig: Rig) -> None:
    contents = payloads()
    identity = requirement(rig, EXACT).identity
    seen: Counter[bool] = Counter()
    for content, signed in zip(contents, rig.signed(contents), strict=True):
        there = rig.taken(signed, EXACT)
        seen[there] += 1
        try:
            parse_payload(content, PayloadType.SIMPLE).refuse_other(subject(), identity)
        except PolicyRefused as exc:
            assert not there or any(reason in str(exc) for reason in NARROWER), (content, exc)
        else:
            assert there, content
    assert seen[True] > 20 and seen[False] > 500


# --- signatures ---------------------------------------------------------------


def both(rig: Rig, signed: bytes, keys: bytes) -> tuple[bool, bool]:
    """Whether it is taken here, and there."""
    wanted = requirement(rig, EXACT, keys)
    try:
        run(verify_signed_by(wanted, subject(), [SimpleSignature(signed, "here")]))
        here = True
    except LayerteeError:
        here = False
    return here, rig.taken(signed, EXACT, keys=keys)


def test_keys_that_count_and_keys_that_do_not(rig: Rig) -> None:
    home, then, soon = rig.signer, "20200101T000000", "20200101T120000"
    home.key("rsa", "rsa2048")
    home.key("with subkey")
    home.subkey("with subkey", "rsa2048")
    home.key("old", life="1d", at=then)
    home.key("revoked")
    gone = home.sign(GOOD, "revoked")
    assert both(rig, gone, home.public("revoked")) == (True, True)
    home.revoke("revoked")
    for taken, signed, keys in (
        (True, home.sign(GOOD, "rsa"), home.public("rsa")),
        (True, home.sign(GOOD, "rsa"), home.public("rsa", armor=True)),
        (True, home.sign(GOOD, "rsa"), home.public("rsa", "key", "old")),
        (True, home.sign(GOOD, f"{home.fingerprints('with subkey')[1]}!"), home.public("with subkey")),
        (False, home.sign(GOOD, "rsa"), home.public("key")),
        (False, home.sign(GOOD, "old", at=soon), home.public("old")),
        (False, gone, home.public("revoked")),
        (False, home.gpg("--store", given=GOOD), home.public("key")),
        (False, home.gpg("--local-user", "=key", "--detach-sign", given=GOOD), home.public("key")),
        (False, home.gpg("--local-user", "=key", "--clear-sign", given=GOOD), home.public("key")),
        (False, b"", home.public("key")),
    ):
        assert both(rig, signed, keys) == (taken, taken)


def test_nothing_else_is_taken_for_signed_in_a_damaged_message(rig: Rig) -> None:
    chosen = random.Random(12)
    messages: list[bytes] = []
    for options in ((), ("--compress-algo", "none")):
        good = rig.signer.sign(GOOD, "key", options=options)
        for at in chosen.sample(range(len(good)), 120):
            messages.append(good[:at] + bytes([good[at] ^ 1 << chosen.randrange(8)]) + good[at + 1 :])
            messages.append(good[:at])

    async def contents() -> list[bytes | None]:
        found: list[bytes | None] = []
        async with keyring([Keys(rig.public, "key")]) as ring:
            for message in messages:
                try:
                    found.append((await ring.verify(message)).payload)
                except PolicyRefused:
                    found.append(None)
        return found

    here = run(contents())
    assert set(here) == {None, GOOD}
    there = [rig.taken(message, EXACT) for message in messages]
    assert sum(there) < len(messages) // 4 and sum(each is not None for each in here) < len(messages) // 4
