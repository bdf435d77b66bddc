"""The real gpg as the judge of signatures: what it is asked, and what of its answers counts."""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from layertee.errors import PolicyRefused, UnsafePath
from layertee.signatures.openpgp.gpg import Keys, Signed, find_gpg, keyring
from layertee.sync import run
from tests.support.openpgp import Signer, signer

pytestmark = pytest.mark.slow

CONTENT = b'{"some": "document"}'
THEN, SOON = "20200101T000000", "20200101T120000"


@dataclass(frozen=True)
class Rig:
    """A home with many keys, and the public ones of all but the stranger's."""

    signer: Signer
    public: bytes

    def fingerprint(self, user: str) -> str:
        return self.signer.fingerprints(user)[0]


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with signer() as home:
        home.key("rsa", "rsa2048")
        home.key("ed")
        home.subkey("ed", "rsa2048")
        home.subkey("ed", "ed25519")
        home.key("stranger")
        home.key("old", life="1d", at=THEN)
        home.key("aged", at=THEN)
        home.subkey("aged", "ed25519", life="1d", at=THEN)
        yield Rig(home, home.public("rsa", "ed", "old", "aged"))


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where keyrings are; nothing may be left there."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    yield place
    assert list(place.iterdir()) == []


def verified(messages: Sequence[bytes], *keys: bytes, gpg: Path | None = None) -> list[Signed | str]:
    """What each signs, or why it proves nothing; all by one keyring."""

    async def main() -> list[Signed | str]:
        found: list[Signed | str] = []
        async with keyring([Keys(key, f"key{i}") for i, key in enumerate(keys)], gpg=gpg) as ring:
            for message in messages:
                try:
                    found.append(await ring.verify(message))
                except PolicyRefused as exc:
                    found.append(str(exc))
        return found

    return run(main())


def reason(message: bytes, *keys: bytes) -> str:
    (found,) = verified([message], *keys)
    assert isinstance(found, str)
    return found


def test_signatures_of_every_kind_of_key_hold(rig: Rig) -> None:
    made = {
        user: rig.signer.sign(CONTENT, user, options=options)
        for user in ("rsa", "ed")
        for options in ((), ("--compress-algo", "none"), ("--compress-algo", "bzip2"))
    }
    for user, message in made.items():
        assert verified([message], rig.public) == [Signed(CONTENT, rig.fingerprint(user))]


def test_a_subkey_signs_for_its_primary_key(rig: Rig) -> None:
    fingerprints = rig.signer.fingerprints("ed")
    messages = [rig.signer.sign(CONTENT, f"{key}!") for key in fingerprints]
    assert len(set(messages)) == 3
    assert verified(messages, rig.public) == [Signed(CONTENT, fingerprints[0])] * 3


def test_keys_come_from_several_files_armored_or_not_and_several_in_one(rig: Rig) -> None:
    home = rig.signer
    together = home.public("ed", armor=True) + b"\n\n" + home.public("stranger", armor=True)
    messages = [home.sign(CONTENT, user) for user in ("rsa", "ed", "stranger")]
    found = verified(messages, home.public("rsa"), together)
    assert found == [Signed(CONTENT, rig.fingerprint(user)) for user in ("rsa", "ed", "stranger")]


def test_the_wrong_key_proves_nothing(rig: Rig) -> None:
    assert "is not one of the policy's" in reason(rig.signer.sign(CONTENT, "stranger"), rig.public)


def test_what_has_expired_proves_nothing(rig: Rig) -> None:
    home, aged = rig.signer, rig.signer.fingerprints("aged")
    assert "has expired" in reason(home.sign(CONTENT, "old", at=SOON), rig.public)
    assert "has expired" in reason(home.sign(CONTENT, f"{aged[1]}!", at=SOON), rig.public)
    once = home.sign(CONTENT, f"{aged[0]}!", options=("--default-sig-expire", "1d"), at=SOON)
    assert "it has expired" in reason(once, rig.public)


def test_another_subkey_that_has_expired_is_no_matter(rig: Rig) -> None:
    primary = rig.fingerprint("aged")
    message = rig.signer.sign(CONTENT, f"{primary}!", at=SOON)
    assert verified([message], rig.public) == [Signed(CONTENT, primary)]


def test_a_revoked_key_proves_nothing(rig: Rig) -> None:
    home = rig.signer
    home.key("revoked")
    message, before = home.sign(CONTENT, "revoked"), home.public("revoked")
    assert verified([message], before) == [Signed(CONTENT, rig.fingerprint("revoked"))]
    home.revoke("revoked")
    after = home.public("revoked")
    assert "was revoked" in reason(message, after)
    assert "was revoked" in reason(message, before, after)
    assert "was revoked" in reason(message, after, before)
    assert "was revoked" in reason(message, before + after)


def test_weak_hashes_prove_nothing(rig: Rig) -> None:
    sha1 = rig.signer.sign(CONTENT, "rsa", options=("--digest-algo", "SHA1"))
    assert "SHA-1, which proves nothing" in reason(sha1, rig.public)


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("two signatures", "more than one signature"),
        ("armored", "no signed OpenPGP message"),
        ("cleartext", "no signed OpenPGP message"),
        ("detached", "says nothing of it"),
        ("not signed", "no signed OpenPGP message"),
        ("text", "not a signature of a binary document"),
        ("encrypted", "no proper OpenPGP message|encrypted|no signed OpenPGP message"),
        ("signed and encrypted", "no proper OpenPGP message|encrypted|no signed OpenPGP message"),
        ("a key", "no proper OpenPGP message"),
        ("unknown critical notation", "was not made by"),
        ("empty", "no signed OpenPGP message"),
        ("the content", "no signed OpenPGP message"),
        ("zeros", "no signed OpenPGP message"),
    ],
)
def test_other_messages_prove_nothing(rig: Rig, what: str, why: str) -> None:
    home = rig.signer
    made: dict[str, Callable[[], bytes]] = {
        "two signatures": lambda: home.sign(CONTENT, "rsa", "ed"),
        "armored": lambda: home.sign(CONTENT, "rsa", options=("--armor",)),
        "cleartext": lambda: home.gpg("-u", "rsa", "--clear-sign", given=CONTENT),
        "detached": lambda: home.gpg("-u", "rsa", "--detach-sign", given=CONTENT),
        "not signed": lambda: home.gpg("--store", given=CONTENT),
        "text": lambda: home.sign(CONTENT, "rsa", options=("--textmode",)),
        "encrypted": lambda: home.gpg("--passphrase", "x", "--symmetric", given=CONTENT),
        "signed and encrypted": lambda: home.gpg(
            "-u", "rsa", "--passphrase", "x", "--sign", "--symmetric", given=CONTENT
        ),
        "a key": lambda: home.public("rsa"),
        "unknown critical notation": lambda: home.sign(
            CONTENT, "rsa", options=("--sig-notation", "!x@example.invalid=y")
        ),
        "empty": lambda: b"",
        "the content": lambda: CONTENT,
        "zeros": lambda: bytes(1000),
    }
    (found,) = verified([made[what]()], rig.public)
    assert isinstance(found, str)
    assert any(each in found for each in why.split("|")), found


def test_notes_in_a_signature_are_no_matter(rig: Rig) -> None:
    options = ("--sig-notation", "x@example.invalid=a b%c", "--sig-policy-url", "https://example.invalid/")
    message = rig.signer.sign(CONTENT, "rsa", options=options)
    assert verified([message], rig.public) == [Signed(CONTENT, rig.fingerprint("rsa"))]


def test_what_is_before_or_after_a_signature_never_counts_as_signed(rig: Rig) -> None:
    home = rig.signer
    signed = home.sign(CONTENT, "rsa", options=("--compress-algo", "none"))
    packed = home.sign(CONTENT, "rsa")
    other = home.gpg("--store", "--compress-algo", "none", given=b"other")
    for messages in ([other, signed], [signed, other], [other, packed], [packed, other], [signed, signed]):
        (found,) = verified([b"".join(messages)], rig.public)
        assert isinstance(found, str) or found.payload == CONTENT


@pytest.mark.parametrize("user", ["rsa", "ed"])
@pytest.mark.parametrize("options", [(), ("--compress-algo", "none")])
def test_a_damaged_signature_proves_nothing_else_than_it_did(
    rig: Rig, user: str, options: tuple[str, ...]
) -> None:
    """Some bits are not signed, the time of the content for example. The content always is."""
    message = rig.signer.sign(CONTENT, user, options=options)
    chosen = random.Random(12)
    places = sorted(chosen.sample(range(len(message)), min(40, len(message))))
    damaged = [
        message[:at] + bytes([message[at] ^ 1 << chosen.randrange(8)]) + message[at + 1 :] for at in places
    ]
    shorter = [message[:at] for at in places]
    found = verified([*damaged, *shorter], rig.public)
    good = Signed(CONTENT, rig.fingerprint(user))
    assert all(isinstance(each, str) or each == good for each in found)
    assert sum(isinstance(each, str) for each in found) > len(found) // 2


def test_what_unpacks_to_too_much_proves_nothing(rig: Rig) -> None:
    for algorithm in ("zlib", "bzip2"):
        bomb = rig.signer.sign(bytes(64 << 20), "rsa", options=("--compress-algo", algorithm))
        assert len(bomb) < 100_000
        assert isinstance(reason(bomb, rig.public), str)
    just = bytes(4 << 20)
    assert verified([rig.signer.sign(just, "rsa")], rig.public) == [Signed(just, rig.fingerprint("rsa"))]
    assert isinstance(reason(rig.signer.sign(just + b"\0", "rsa"), rig.public), str)


def test_what_is_no_key_is_refused_beside_good_ones(rig: Rig) -> None:
    for bad in (b"", b"nothing", rig.signer.sign(CONTENT, "rsa"), rig.public[:40], bytes(1000)):
        with pytest.raises(PolicyRefused, match="key1: there is"):
            verified([], rig.public, bad)


def test_a_key_without_a_name_that_it_has_signed_is_refused(rig: Rig) -> None:
    key = rig.signer.public("rsa")
    at = key.rindex(b"rsa")
    with pytest.raises(PolicyRefused, match="key0: there is an OpenPGP key in it that gpg does not take"):
        verified([], key[:at] + b"RSA" + key[at + 3 :])


def test_a_signature_does_not_bring_its_key_along(rig: Rig) -> None:
    options = ("--include-key-block",)
    message = rig.signer.sign(CONTENT, f"{rig.fingerprint('stranger')}!", options=options)
    assert len(message) > 300
    found = verified([message, message], rig.public)
    assert all(isinstance(each, str) and "not one of the policy's" in each for each in found)


def test_the_users_own_gpg_is_left_alone(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its options and keys do not count, and nothing is written or started there."""
    own = tmp_path / "own"
    own.mkdir(mode=0o700)
    (own / "gpg.conf").write_text("no-such-option\n")
    monkeypatch.setenv("GNUPGHOME", str(own))
    monkeypatch.setenv("HOME", str(own))
    message = rig.signer.sign(CONTENT, "stranger")
    assert "not one of the policy's" in reason(message, rig.public)
    assert [file.name for file in own.iterdir()] == ["gpg.conf"]


def test_a_program_that_others_could_change_is_not_run(tmp_path: Path) -> None:
    program = tmp_path / "gpg"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o777)
    with pytest.raises(UnsafePath):
        verified([], b"", gpg=program)


def test_another_program_is_not_taken_for_gpg(tmp_path: Path) -> None:
    program = tmp_path / "gpg"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    with pytest.raises(PolicyRefused, match=r"is not GnuPG's gpg"):
        verified([], b"", gpg=program)


def test_without_what_the_kernel_does_not_allow_it_is_checked_all_the_same(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that cannot be begun behind the first wrapper is begun behind the next, or without one."""
    if os.geteuid() != 0:
        pytest.skip("only a program of root's can start another")
    program = tmp_path / "gpg"
    program.write_text(
        f'#!/bin/sh\ngrep -q "NoNewPrivs:.1" /proc/self/status && exit 9\nexec {find_gpg()} "$@"\n'
    )
    program.chmod(0o755)
    found = verified([rig.signer.sign(CONTENT, "rsa")], rig.public, gpg=program)
    assert found == [Signed(CONTENT, rig.fingerprint("rsa"))]


def test_a_gpg_that_ends_between_two_files_of_keys_is_not_believed(rig: Rig, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only a program of root's can start another")
    program = tmp_path / "gpg"
    program.write_text(f'#!/bin/sh\nset -e\nmkdir "$HOME/one" || exit 0\nexec {find_gpg()} "$@"\n')
    program.chmod(0o755)
    with pytest.raises(PolicyRefused, match="key1: gpg did not begin to read it"):
        verified([], rig.public, rig.public, gpg=program)


def test_a_gpg_that_fails_is_not_believed(rig: Rig, tmp_path: Path) -> None:
    """It says all that is wanted, but ends badly."""
    program = tmp_path / "gpg"
    real = find_gpg()
    program.write_text(f'#!/bin/sh\n{real} "$@" || exit\ncase "$*" in *--verify*) exit 2 ;; esac\n')
    program.chmod(0o755)
    if os.geteuid() != 0:
        pytest.skip("only a program of root's can start another")
    (found,) = verified([rig.signer.sign(CONTENT, "rsa")], rig.public, gpg=program)
    assert isinstance(found, str)
    assert "gpg does not accept it" in found


def test_gpg_is_found_on_absolute_parts_of_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("gpg", "gpg2"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
    with pytest.raises(PolicyRefused, match="package gpg of Debian and Ubuntu, and in gnupg2 of Fedora"):
        find_gpg({"PATH": ".::relative:/nowhere"})
    assert find_gpg({"PATH": f".:{tmp_path}"}) == tmp_path / "gpg"
    (tmp_path / "gpg").chmod(0o644)
    assert find_gpg({"PATH": f"{tmp_path}:/nowhere"}) == tmp_path / "gpg2"


def test_a_check_that_is_cancelled_leaves_nothing(rig: Rig) -> None:
    message = rig.signer.sign(bytes(64 << 20), "rsa", options=("--compress-algo", "bzip2"))

    async def main() -> None:
        begun = asyncio.Event()

        async def check() -> None:
            async with keyring([Keys(rig.public, "key")]) as ring:
                begun.set()
                await ring.verify(message)

        task = asyncio.ensure_future(check())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
