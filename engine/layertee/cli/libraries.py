"""Versions of libraries with known trouble, for ``layertee doctor``.

A row names a mistake that a pull or ``layertee serve`` can run into, what mended it, and who says so.
Distributions mend libraries without a new number, so each is a warning, and no reason to do less.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping
from importlib import metadata

from ..record import dataclass

_Number = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Trouble:
    """From version ``since`` on, until ``mended``."""

    library: str
    since: _Number
    mended: _Number
    what: str
    source: str


TROUBLES = (
    Trouble(
        *("OpenSSL", (3, 0, 0), (3, 0, 2)),
        "a server's certificate can keep it busy without end (CVE-2022-0778)",
        "https://www.openssl.org/news/secadv/20220315.txt",
    ),
    Trouble(
        *("OpenSSL", (3, 0, 4), (3, 0, 5)),
        "with an RSA key, serve can write past its memory on CPUs with AVX-512 (CVE-2022-2274)",
        "https://www.openssl.org/news/secadv/20220705.txt",
    ),
    Trouble(
        *("OpenSSL", (3, 0, 0), (3, 0, 7)),
        "a certificate can write past its memory (CVE-2022-3602, CVE-2022-3786)",
        "https://www.openssl.org/news/secadv/20221101.txt",
    ),
)


def library_warnings() -> list[str]:
    """What is known of the libraries that this process has, a line each."""
    openssl = {"OpenSSL": openssl_number(ssl.OPENSSL_VERSION_INFO)}
    try:
        required = metadata.requires("layertee") or []
    except metadata.PackageNotFoundError:  # run from its sources
        required = []
    return [*known_troubles(openssl), *too_old(required, metadata.version)]


def openssl_number(info: _Number) -> _Number:
    """The three numbers of a version, as ``ssl.OPENSSL_VERSION_INFO`` has it.

    OpenSSL 3 leaves the third of its five empty: 3.0.19 is (3, 0, 0, 19, 0), but 1.1.1w is (1, 1, 1, 23, 15).
    """
    return (*info[:2], info[3]) if info[0] >= 3 else info[:3]


def known_troubles(versions: Mapping[str, _Number]) -> list[str]:
    """The rows that fit these versions."""
    return [
        f"{row.library} {_text(versions[row.library])}: {row.what}, unless the distribution has mended it; "
        f"{_text(row.mended)} has: {row.source}"
        for row in TROUBLES
        if row.library in versions and row.since <= versions[row.library] < row.mended
    ]


def too_old(required: list[str], version_of: Callable[[str], str]) -> list[str]:
    """Packages of Python that are older than ``required`` says, as metadata has it; extras do not count."""
    found = []
    for line in required:
        least = re.match(r"([\w.-]+)>=([\d.]+)", line)
        if least is None or "extra ==" in line:
            continue
        name, wanted = least.groups()
        try:
            has = version_of(name)
        except metadata.PackageNotFoundError:
            continue  # then nothing of it is used, or the import has failed with a better word
        if _number(has) < _number(wanted):
            found.append(f"{name} {has} is older than what layertee is tried with: {wanted} or newer")
    return found


def _number(text: str) -> _Number:
    """The leading numbers of a version: what counts for those that are asked for."""
    leading = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, leading[0].split("."))) if leading else ()


def _text(number: _Number) -> str:
    return ".".join(map(str, number))
