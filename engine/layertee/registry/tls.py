"""TLS contexts: what a registry's peer has to prove, and what it is shown of this machine.

Directories are laid out as containers-certs.d(5) has them: ``*.crt`` are authorities beside those of the
system, ``NAME.cert`` and ``NAME.key`` a certificate of this client and its key. An authority that can't be
read is left out with a warning, since all that follows is that fewer peers are trusted. A client's
certificate that can't be used is an error: without it the registry would answer as if to a stranger.
"""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Sequence
from pathlib import Path

from ..errors import AuthConfigError

log = logging.getLogger(__name__)

# Where distributions have the authorities that they trust: Debian; Fedora, CentOS; openSUSE; Alpine.
SYSTEM_BUNDLES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"),
    Path("/etc/ssl/ca-bundle.pem"),
    Path("/etc/ssl/cert.pem"),
)


def tls_context(*, verify: bool, cert_dir: Path | None) -> ssl.SSLContext:
    """A context for connections to one registry. It may be used for many, at once.

    Raises AuthConfigError, which names the file, for a client's certificate or key that is missing or
    unusable, and for a directory that can't be read.
    """
    if verify:
        context = ssl.create_default_context()
        if (bundle := bundle_of_the_system(ssl.get_default_verify_paths())) is not None:
            _add_authorities(context, bundle)
        # RFC 9110 §4.3.4: names are those of the extension. A common name is a text for people.
        context.hostname_checks_common_name = False
    else:  # without the system's CA certificates, which take 40 ms to read
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if cert_dir is None:
        return context
    try:
        files = sorted(cert_dir.iterdir())
    except OSError as exc:
        raise AuthConfigError(f"certificate directory {cert_dir}: {exc.strerror or exc}") from exc
    for file in files:
        # By the end of the name: what pathlib takes for a suffix depends on Python's version.
        name = file.name
        if name.endswith(".crt"):
            _add_authorities(context, file)
        elif name.endswith(".cert"):
            _add_pair(context, file, file.with_name(name.removesuffix(".cert") + ".key"))
        elif name.endswith(".key"):
            certificate = file.with_name(name.removesuffix(".key") + ".cert")
            if certificate not in files:
                raise AuthConfigError(f"the key {file} has no certificate: {certificate} is missing")
    return context


def bundle_of_the_system(
    known: ssl.DefaultVerifyPaths, bundles: Sequence[Path] = SYSTEM_BUNDLES
) -> Path | None:
    """Authorities of the system that OpenSSL does not find by itself; None if it does, or there are none.

    An OpenSSL that was built for another distribution, as a self-contained installation has it, looks where
    that one keeps them. ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` stand for what they name.
    """
    said = (known.openssl_cafile_env, known.openssl_capath_env)
    if known.cafile or known.capath or any(os.environ.get(name) for name in said):
        return None
    return next((path for path in bundles if path.is_file()), None)


def _add_authorities(context: ssl.SSLContext, file: Path) -> None:
    try:
        context.load_verify_locations(cafile=str(file))
    except (OSError, ssl.SSLError) as exc:
        log.warning("%s is left out: no certificate can be read from it: %s", file, _reason(exc))


def _add_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Show ``certificate`` to a peer that asks for one."""

    def no_passphrase() -> str:
        """OpenSSL would ask on the terminal, in the middle of whatever is shown there."""
        raise AuthConfigError(f"the key {key} has a passphrase; only keys without one can be used")

    for file, other in ((certificate, key), (key, certificate)):
        try:
            with file.open("rb"):
                pass
        except FileNotFoundError as exc:
            raise AuthConfigError(f"{other} needs {file}, which is missing") from exc
        except OSError as exc:
            raise AuthConfigError(f"{file} can't be read: {exc.strerror or exc}") from exc
    try:
        # Loads and checks the certificates of a file; the context that is used must not trust them.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=str(certificate))
    except (OSError, ssl.SSLError) as exc:
        raise AuthConfigError(f"no certificate can be read from {certificate}: {_reason(exc)}") from exc
    try:
        context.load_cert_chain(str(certificate), str(key), password=no_passphrase)
    except (OSError, ssl.SSLError) as exc:
        raise AuthConfigError(f"the key {key} can't be used with {certificate}: {_reason(exc)}") from exc


def _reason(exc: OSError) -> str:
    """One line that doesn't name a file, which OpenSSL does not do anyhow."""
    if isinstance(exc, ssl.SSLError):
        return (exc.reason or "not in PEM form").replace("_", " ").lower()
    return exc.strerror or str(exc)
