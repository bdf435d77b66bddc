"""Digest and DiffID: what is one, and that they are not the same type."""

from __future__ import annotations

import copy
import hashlib
import io
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertee.errors import DigestMismatch, DocumentError
from layertee.image.document import EMPTY_DIFF_ID, DiffID, Digest

ENGINE = Path(__file__).resolve().parents[3] / "engine"


def test_a_digest_is_of_the_bytes() -> None:
    assert Digest.of(b"abc") == "sha256:" + hashlib.sha256(b"abc").hexdigest()
    assert Digest.of(b"abc").algorithm == "sha256"
    assert Digest.of(b"abc").hex == hashlib.sha256(b"abc").hexdigest()


def test_the_empty_diff_id_is_that_of_an_empty_tar() -> None:
    buffer = io.BytesIO()
    tarfile.open(fileobj=buffer, mode="w").close()
    assert "sha256:" + hashlib.sha256(buffer.getvalue()[:1024]).hexdigest() == EMPTY_DIFF_ID
    assert EMPTY_DIFF_ID == "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        "sha256:" + "A" * 64,
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha512:" + "a" * 64,
        "sha256:" + "a" * 64 + "\n",
        "blake3:" + "a" * 64,
        "sha256:../" + "a" * 61,
        None,
        7,
    ],
)
def test_what_is_not_a_digest_is_refused(text: object) -> None:
    with pytest.raises(DocumentError, match="the thing"):
        Digest.parse(text, "the thing")
    with pytest.raises(ValueError, match="not a sha256"):
        DiffID(text)  # type: ignore[arg-type]


@given(st.text(max_size=100))
def test_no_text_but_a_digest_parses(text: str) -> None:
    try:
        parsed = Digest.parse(text)
    except DocumentError:
        return
    assert parsed == text
    assert set(parsed.hex) <= set("0123456789abcdef")


def test_a_digest_survives_copying_and_pickling() -> None:
    digest = Digest.of(b"x")
    for other in (copy.copy(digest), copy.deepcopy(digest), pickle.loads(pickle.dumps(digest))):
        assert type(other) is Digest
        assert other == digest
    assert not hasattr(digest, "__dict__")


def test_a_sha512_digest_checks_bytes() -> None:
    digest = Digest("sha512:" + hashlib.sha512(b"abc").hexdigest())
    digest.check(b"abc", "it")
    with pytest.raises(DigestMismatch) as caught:
        digest.check(b"abd", "it")
    assert caught.value.want == digest
    assert caught.value.got == "sha512:" + hashlib.sha512(b"abd").hexdigest()


def test_mypy_rejects_a_diff_id_where_a_digest_is_meant(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    snippet = tmp_path / "snippet.py"
    snippet.write_text(
        "from layertee.image.digest import DiffID, Digest\n"
        "def url(d: Digest) -> str: return d\n"
        "def tar(d: DiffID) -> str: return d\n"
        "x = DiffID('x')\n"
        "url(x)\n"
        "tar(Digest.of(b''))\n"
        "url(Digest.of(b''))\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(snippet)]
    run = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={"MYPYPATH": str(ENGINE)}, check=False
    )
    lines = [line.split(":")[1] for line in run.stdout.splitlines() if "arg-type" in line]
    assert lines == ["5", "6"], run.stdout
