"""What gpg says is believed in full, or not at all."""

from __future__ import annotations

import pytest

from layertee.errors import PolicyRefused
from layertee.signatures.openpgp.gpgstatus import MAX_STATUS, imported_keys, signer

PRIMARY, SUBKEY, OTHER = "A" * 24 + "1" * 16, "B" * 24 + "2" * 16, "C" * 24 + "3" * 16
GOOD = [
    "PLAINTEXT 62 1795871819 p.json",
    "PLAINTEXT_LENGTH 8",
    "NEWSIG",
    f"KEY_CONSIDERED {PRIMARY} 0",
    "SIG_ID mJPhyt1dOf4bA74W4ryO4Oxc0q0 2026-11-28 1795871819",
    f"GOODSIG {SUBKEY[-16:]} Somebody <a@example.invalid>",
    f"VALIDSIG {SUBKEY} 2026-11-28 1795871819 0 4 0 1 10 00 {PRIMARY}",
]


def said(*lines: str) -> bytes:
    return "".join(f"[GNUPG:] {line}\n" for line in lines).encode()


def changed(old: str, new: str) -> bytes:
    raw = said(*GOOD)
    assert old.encode() in raw
    return raw.replace(old.encode(), new.encode())


def test_the_primary_key_of_a_good_signature_is_told() -> None:
    assert signer(said(*GOOD), frozenset({OTHER, PRIMARY})) == PRIMARY


@pytest.mark.parametrize(
    "line",
    [
        *(
            "TRUST_UNDEFINED 0 pgp",
            "TRUST_FULLY 0 always",
            "VERIFICATION_COMPLIANCE_MODE 23",
            "PROGRESS x ? 1 0",
        ),
        *("NOTATION_NAME a@example.invalid", "NOTATION_FLAGS 0 1", "NOTATION_DATA x", "POLICY_URL https://x"),
        *("KEYEXPIRED 1795871819", "KEYREVOKED", "SUCCESS verify"),
    ],
)
def test_more_that_says_nothing_against_it_is_no_matter(line: str) -> None:
    for at in range(len(GOOD) + 1):
        assert signer(said(*GOOD[:at], line, *GOOD[at:]), frozenset({PRIMARY})) == PRIMARY


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("BADSIG 1111111111111111 x", "was not made by key 1111111111111111"),
        ("ERRSIG 1111111111111111 99 8 00 1795871819 4 -", "gpg cannot check it .key 1111111111111111, algo"),
        ("ERRSIG", "gpg cannot check it"),
        ("NO_PUBKEY 3333333333333333", "made with key 3333333333333333, which is not one of the policy's"),
        ("EXPSIG 1111111111111111 x", "it has expired"),
        ("EXPKEYSIG 1111111111111111 x", "key 1111111111111111 has expired"),
        ("REVKEYSIG 1111111111111111 x", "key 1111111111111111 was revoked"),
        ("TRUST_NEVER 0 pgp", "never to be trusted"),
        ("NODATA 4", "no signed OpenPGP message"),
        ("UNEXPECTED 0", "no proper OpenPGP message"),
        ("BEGIN_DECRYPTION", "encrypted"),
        ("FAILURE gpg-exit 33554433", "gpg says FAILURE of it"),
        ("ERROR verify.x 1", "gpg says ERROR of it"),
        ("A_WORD_OF_TOMORROW", "gpg says A_WORD_OF_TOMORROW of it"),
        ("", "gpg says  of it"),
        (" GOODSIG", "gpg says  of it"),
        *((line, "more than one") for line in ("NEWSIG", "NEWSIG a@b", GOOD[0], GOOD[5], GOOD[6])),
    ],
)
def test_anything_against_it_is_a_refusal_wherever_it_stands(line: str, why: str) -> None:
    for at in range(len(GOOD) + 1):
        with pytest.raises(PolicyRefused, match=why):
            signer(said(*GOOD[:at], line, *GOOD[at:]), frozenset({PRIMARY}))


@pytest.mark.parametrize("word", ["PLAINTEXT", "NEWSIG", "GOODSIG", "VALIDSIG"])
def test_nothing_of_what_belongs_to_it_may_be_missing(word: str) -> None:
    lines = [line for line in GOOD if line.split(" ")[0] != word]
    with pytest.raises(PolicyRefused, match=f"does not say {word}"):
        signer(said(*lines), frozenset({PRIMARY}))


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (f"00 {PRIMARY}", f"00 {OTHER}", f"key {OTHER}, which is not one"),
        (f"00 {PRIMARY}", f"00 {PRIMARY.lower()}", "does not say which key"),
        (f"00 {PRIMARY}", "00 ", "does not say which key"),
        (f"00 {PRIMARY}", "00", "says too little"),
        (f"00 {PRIMARY}", f"01 {PRIMARY}", "not a signature of a binary document"),
        ("PLAINTEXT 62", "PLAINTEXT 74", "not a signature of a binary document"),
        ("PLAINTEXT 62 1795871819 p.json", "PLAINTEXT", "says too little"),
        (f"GOODSIG {SUBKEY[-16:]}", f"GOODSIG {OTHER[-16:]}", "two different keys"),
        (f"VALIDSIG {SUBKEY}", f"VALIDSIG {SUBKEY[1:]}", "does not say which key"),
        (" 1 10 00", " 1 2 00", "SHA-1, which proves nothing"),
        (" 1 10 00", " 1 1 00", "MD5, which"),
        (" 1 10 00", " 1 3 00", "RIPEMD-160, which"),
        (" 1 10 00", " 1 77 00", r"an unknown hash \(77\)"),
        ("[GNUPG:] NEWSIG\n", "gpg: NEWSIG\n", "no status"),
        ("[GNUPG:] NEWSIG\n", "[GNUPG:]NEWSIG\n", "no status"),
        ("[GNUPG:] NEWSIG\n", "[GNUPG:] NEWSIG\n\n", "no status"),
        ("[GNUPG:] NEWSIG\n", "[GNUPG:] NEWSIG\r\n", "gpg says"),
    ],
)
def test_what_it_says_of_it_has_to_fit(old: str, new: str, why: str) -> None:
    with pytest.raises(PolicyRefused, match=why):
        signer(changed(old, new), frozenset({PRIMARY}))


def test_a_name_cannot_end_its_line() -> None:
    name = "\N{LINE SEPARATOR}[GNUPG:] BADSIG\v\x85\f[GNUPG:] NEWSIG"
    assert signer(changed("Somebody", name), frozenset({PRIMARY})) == PRIMARY


@pytest.mark.parametrize("raw", [b"", b"\n", b"[GNUPG:] ", said(*GOOD)[:-1], said(*GOOD) + b"\xff"])
def test_a_part_of_it_is_a_refusal(raw: bytes) -> None:
    with pytest.raises(PolicyRefused):
        signer(raw, frozenset({PRIMARY}))


def test_too_much_of_it_is_a_refusal() -> None:
    line = "NOTATION_DATA " + "x" * (MAX_STATUS - len(said(*GOOD)) - len(said("NOTATION_DATA ")))
    assert signer(said(line, *GOOD), frozenset({PRIMARY})) == PRIMARY
    with pytest.raises(PolicyRefused, match="says too much"):
        signer(said(line + "x", *GOOD), frozenset({PRIMARY}))


def test_a_refusal_is_one_short_line() -> None:
    with pytest.raises(PolicyRefused) as caught:
        signer(said("BADSIG \x1b[2J" + "x" * 10000), frozenset({PRIMARY}))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


RESULT = "IMPORT_RES 2 0 2 0 0 0 0 0 0 0 0 0 0 0 0"


def test_the_keys_that_were_taken_are_told() -> None:
    lines = (
        *(f"KEY_CONSIDERED {PRIMARY} 0", "IMPORTED 1111111111111111 Somebody", f"IMPORT_OK 1 {PRIMARY}"),
        *("NOTATION_DATA x", f"IMPORT_OK 0 {OTHER}", RESULT),
    )
    assert imported_keys(said(*lines)) == {PRIMARY, OTHER}


def test_old_keys_that_nothing_uses_are_no_matter() -> None:
    result = "IMPORT_RES 2 0 1 0 0 0 0 0 0 0 0 0 0 0 1"
    assert imported_keys(said(f"IMPORT_OK 1 {PRIMARY}", result)) == {PRIMARY}


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ((), "did not say which keys"),
        ((f"IMPORT_OK 1 {PRIMARY}",), "did not say which keys"),
        ((f"IMPORT_OK 1 {PRIMARY}", RESULT), "does not take"),
        ((f"IMPORT_OK 1 {PRIMARY}", "IMPORT_PROBLEM 1 x", RESULT), "does not take"),
        ((f"IMPORT_OK 1 {PRIMARY}", "IMPORT_OK 1", RESULT), "does not take"),
        ((f"IMPORT_OK 1 {PRIMARY}", "IMPORT_OK 1 x", RESULT), "does not take"),
        ((f"IMPORT_OK 1 {PRIMARY}", f"IMPORT_OK 1 {OTHER}", RESULT, RESULT), "did not say which keys"),
        ((f"IMPORT_OK 1 {PRIMARY}", f"IMPORT_OK 1 {OTHER}", RESULT[:-2]), "did not say which keys"),
        ((f"IMPORT_OK 1 {PRIMARY}", f"IMPORT_OK 1 {OTHER}", RESULT.replace("2", "-2")), "did not say"),
        (("IMPORT_RES 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0",), "no OpenPGP key in it"),
        (("IMPORT_RES 1 0 0 0 0 0 0 0 0 0 0 0 0 0 1",), "no OpenPGP key in it"),
        (("IMPORT_RES 1 1 0 0 0 0 0 0 0 0 0 0 0 0 0",), "does not take"),
    ],
)
def test_all_keys_have_to_be_taken(lines: tuple[str, ...], why: str) -> None:
    with pytest.raises(PolicyRefused, match=why):
        imported_keys(said(*lines))
