"""Trusted roots: files of the administrator's, and the one that the sigstore library keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from layertee.config.trustfile import parse_trust
from layertee.config.trustrules import ScopeRules
from layertee.errors import DocumentError, TrustFileError, UnsafePath
from layertee.signatures.trust.files import load_trust
from layertee.signatures.trust.material import load_root
from layertee.signatures.trust.root import parse_root
from tests.support.bundlekit import WORKFLOW, Sigstore, moment
from tests.support.sigstorekit import ISSUER
from tests.support.trustmachine import FOR_IMAGE, Machine

KEYLESS = f'signer = [{{issuer = "{ISSUER}", subject = "{WORKFLOW}"}}]'


def rules(text: str) -> ScopeRules:
    (found,) = parse_trust(Path("/etc/trust.toml"), f'[scope."quay.io"]\n{text}\n{KEYLESS}'.encode()).values()
    return found


@pytest.fixture(scope="module")
def sigstore() -> Sigstore:
    return Sigstore()


# --- what the library keeps ---


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("cache", "data"):
        monkeypatch.setenv(f"XDG_{name.upper()}_HOME", str(tmp_path / name))
    return tmp_path


def test_the_public_root_is_there_without_a_network(home: Path) -> None:
    root = load_root(rules("tuf = true"))
    assert root is not None
    assert len(root.logs) >= 2
    assert root.as_of(1_700_000_000)["certificateAuthorities"] != []


def test_it_does_not_trust_another_sigstore(home: Path, tmp_path: Path, sigstore: Sigstore) -> None:
    machine = Machine(tmp_path, sigstore)
    message = machine.refuses(f"tuf = true\n{KEYLESS}", sigstore.keyless(FOR_IMAGE), root=False)
    assert "CertValidationError" in message


def test_a_repository_that_was_never_fetched_has_no_root(home: Path) -> None:
    with pytest.raises(TrustFileError, match="cannot be had by TUF"):
        load_root(rules('tuf = true\ntuf-url = "https://tuf.example.com"'))


def test_a_cache_that_others_can_change_is_refused(home: Path) -> None:
    load_root(rules("tuf = true"))
    (home / "cache/sigstore-python").chmod(0o777)
    with pytest.raises(UnsafePath):
        load_root(rules("tuf = true"))


# --- a file ---


def test_only_what_was_in_use_is_left(sigstore: Sigstore) -> None:
    def edit(document: dict[str, Any]) -> None:
        document["certificateAuthorities"][0]["validFor"] = {"start": moment(1000), "end": moment(2000)}
        document["tlogs"][0]["publicKey"]["validFor"] = {"start": moment(1500)}
        del document["ctlogs"][0]["publicKey"]["validFor"]

    root = parse_root(sigstore.trusted_root(edit), "root")

    def left(at: float) -> list[int]:
        kept = json.loads(root.client_config(at))["trustedRoot"]
        return [len(kept[part]) for part in ("certificateAuthorities", "tlogs", "ctlogs")]

    assert [left(at) for at in (999, 1000, 1500, 2000, 2001)] == [
        [0, 0, 1],
        [1, 0, 1],
        [1, 1, 1],
        [1, 1, 1],
        [0, 1, 1],
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"mediaType": None},
        {"mediaType": "application/json"},
        {"tlogs": {}},
        {"tlogs": [1]},
        {"tlogs": [{}]},
        {"certificateAuthorities": [{"validFor": 1}]},
        {"certificateAuthorities": [{"validFor": {"start": "yesterday"}}]},
        {"certificateAuthorities": [{}] * 65},
        {"ctlogs": [{"publicKey": []}]},
    ],
)
def test_roots_that_make_no_sense_are_refused(sigstore: Sigstore, change: dict[str, Any]) -> None:
    raw = sigstore.trusted_root(lambda document: document.update(change))
    with pytest.raises(DocumentError):
        parse_root(raw, "root")


def test_a_key_of_a_log_that_cannot_be_read_is_refused(sigstore: Sigstore) -> None:
    def edit(document: dict[str, Any]) -> None:
        document["tlogs"][0]["publicKey"]["rawBytes"] = "AAAA"

    with pytest.raises(DocumentError, match="the key of a log"):
        parse_root(sigstore.trusted_root(edit), "root")


# --- trust.toml itself ---


def test_trust_toml_is_read_if_nobody_else_can_change_it(tmp_path: Path) -> None:
    path = tmp_path / "trust.toml"
    path.write_text('[scope."quay.io"]\ndowngrade = "refuse"\n')
    assert list(load_trust(path).scopes) == ["quay.io"]
    path.chmod(0o606)
    with pytest.raises(UnsafePath, match="others may write"):
        load_trust(path)
    path.chmod(0o600)
    tmp_path.chmod(0o777)
    with pytest.raises(UnsafePath, match="others may write"):
        load_trust(path)
    tmp_path.chmod(0o700)
    path.unlink()
    with pytest.raises(TrustFileError, match="cannot be read"):
        load_trust(path)
