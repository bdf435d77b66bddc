"""What a certificate directory may hold, and which file is named when it can't be used."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from layertee.errors import AuthConfigError
from layertee.registry.tls import bundle_of_the_system, tls_context

PEM = serialization.Encoding.PEM
PKCS8 = serialization.PrivateFormat.PKCS8


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def directory(authority: trustme.CA, tmp_path: Path) -> Path:
    """``ca.crt``, ``client.cert`` and ``client.key``, all good."""
    leaf = authority.issue_cert("client.example")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    leaf.cert_chain_pems[0].write_to_path(str(tmp_path / "client.cert"))
    leaf.private_key_pem.write_to_path(str(tmp_path / "client.key"))
    return tmp_path


def trusts_ours(context: ssl.SSLContext) -> bool:
    return "trustme" in str(context.get_ca_certs())


def refused(directory: Path) -> str:
    with pytest.raises(AuthConfigError) as caught:
        tls_context(verify=True, cert_dir=directory)
    return str(caught.value)


def test_authorities_are_added_to_those_of_the_system(directory: Path) -> None:
    system = tls_context(verify=True, cert_dir=None)
    both = tls_context(verify=True, cert_dir=directory)
    assert (trusts_ours(system), trusts_ours(both)) == (False, True)
    assert len(both.get_ca_certs()) == len(system.get_ca_certs()) + 1


def test_a_common_name_is_no_name() -> None:
    context = tls_context(verify=True, cert_dir=None)
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert not context.hostname_checks_common_name


@pytest.mark.parametrize("what", ["garbage", "empty", "a dangling link", "a directory"])
def test_an_authority_that_cannot_be_read_is_left_out_with_a_warning(
    directory: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = directory / "another.crt"
    match what:
        case "garbage":
            file.write_text("not a certificate")
        case "empty":
            file.touch()
        case "a dangling link":
            file.symlink_to("gone")
        case _:
            file.mkdir()
    with caplog.at_level(logging.WARNING):
        context = tls_context(verify=True, cert_dir=directory)
    assert trusts_ours(context)
    (said,) = caplog.messages
    assert said.startswith(f"{file} is left out: ")


def test_half_a_pair_is_an_error_that_names_the_missing_file(directory: Path) -> None:
    (directory / "client.key").rename(directory / "other.key")
    assert refused(directory) == f"{directory}/client.cert needs {directory}/client.key, which is missing"
    (directory / "client.cert").unlink()
    assert f"{directory}/other.key" in refused(directory)
    assert f"{directory}/other.cert is missing" in refused(directory)


@pytest.mark.parametrize("suffix", [".cert", ".key"])
@pytest.mark.parametrize("what", ["garbage", "a directory"])
def test_a_pair_that_is_broken_is_an_error_that_names_the_file(
    directory: Path, suffix: str, what: str
) -> None:
    file = directory / f"client{suffix}"
    file.unlink()
    if what == "garbage":
        file.write_text("nothing of the kind")
    else:
        file.mkdir()
    said = refused(directory)
    assert f"{'key' if suffix == '.key' and what == 'garbage' else ''} {file} ".strip() in said


def test_a_key_of_another_certificate_is_an_error(authority: trustme.CA, directory: Path) -> None:
    authority.issue_cert("other.example").private_key_pem.write_to_path(str(directory / "client.key"))
    assert refused(directory).startswith(
        f"the key {directory}/client.key can't be used with {directory}/client.cert: "
    )


def test_a_passphrase_is_not_asked_for(directory: Path) -> None:
    file = directory / "client.key"
    key = serialization.load_pem_private_key(file.read_bytes(), None)
    file.write_bytes(key.private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"planted")))
    assert refused(directory) == f"the key {file} has a passphrase; only keys without one can be used"


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert (
        refused(tmp_path / "none") == f"certificate directory {tmp_path / 'none'}: No such file or directory"
    )


def test_without_verification_a_client_still_shows_its_certificate(directory: Path) -> None:
    context = tls_context(verify=False, cert_dir=directory)
    assert context.verify_mode is ssl.CERT_NONE
    (directory / "client.key").unlink()
    with pytest.raises(AuthConfigError):
        tls_context(verify=False, cert_dir=directory)


def known(cafile: str | None = None, capath: str | None = None) -> ssl.DefaultVerifyPaths:
    """What OpenSSL finds at the places it was built for."""
    places = ("SSL_CERT_FILE", "/usr/lib/ssl/cert.pem", "SSL_CERT_DIR", "/usr/lib/ssl/certs")
    return ssl.DefaultVerifyPaths(cafile, capath, *places)  # type: ignore[arg-type] # None is what it has


def test_where_openssl_finds_no_authorities_those_of_another_distribution_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    absent, first, second = (tmp_path / name for name in ("absent", "first", "second"))
    first.touch()
    second.touch()
    assert bundle_of_the_system(known(), [absent, first, second]) == first
    assert bundle_of_the_system(known(), [absent]) is None
    assert bundle_of_the_system(known(cafile="/usr/lib/ssl/cert.pem"), [first]) is None
    assert bundle_of_the_system(known(capath="/usr/lib/ssl/certs"), [first]) is None


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_what_the_environment_names_is_not_replaced_though_it_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    bundle = tmp_path / "bundle"
    bundle.touch()
    monkeypatch.setenv(name, str(tmp_path / "gone"))
    assert bundle_of_the_system(known(), [bundle]) is None
