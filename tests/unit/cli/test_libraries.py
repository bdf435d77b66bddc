"""What ``doctor`` says of versions of libraries."""

from __future__ import annotations

import re
import ssl
from importlib import metadata

import pytest

from layertee.cli.libraries import TROUBLES, known_troubles, library_warnings, openssl_number, too_old


@pytest.mark.parametrize(
    ("number", "found"),
    [
        ((1, 1, 1), []),
        ((3, 0, 0), ["CVE-2022-0778", "CVE-2022-3602"]),
        ((3, 0, 4), ["CVE-2022-2274", "CVE-2022-3602"]),
        ((3, 0, 6), ["CVE-2022-3602"]),
        ((3, 0, 7), []),
        ((3, 5, 1), []),
    ],
)
def test_an_openssl_with_known_trouble_is_named_with_what_and_where_it_stands(
    number: tuple[int, ...], found: list[str]
) -> None:
    lines = known_troubles({"OpenSSL": number})
    assert [re.findall(r"CVE-\d+-\d+", line)[0] for line in lines] == found
    assert all("https://" in line and "unless the distribution has mended it" in line for line in lines)


@pytest.mark.skipif(not ssl.OPENSSL_VERSION.startswith("OpenSSL "), reason="its numbers are others")
def test_the_number_of_openssl_is_the_one_in_its_name() -> None:
    number = ".".join(map(str, openssl_number(ssl.OPENSSL_VERSION_INFO)))
    assert re.match(rf"OpenSSL {re.escape(number)}[a-z]* ", ssl.OPENSSL_VERSION)
    assert openssl_number((1, 1, 1, 23, 15)) == (1, 1, 1)


def test_every_row_ends_after_it_begins_and_has_a_source() -> None:
    assert all(row.since < row.mended and row.source.startswith("https://") for row in TROUBLES)


def test_a_package_older_than_what_is_asked_for_is_named() -> None:
    has = {"aiohttp": "3.8.4", "rich": "13.9", "cffi": "1.17.0rc1"}

    def version_of(name: str) -> str:
        if name not in has:
            raise metadata.PackageNotFoundError(name)
        return has[name]

    required = ["aiohttp>=3.14.3", "rich>=13", "cffi>=1.17", "isal>=1.7", 'rich>=99; extra == "new"']
    assert too_old(required, version_of) == [
        "aiohttp 3.8.4 is older than what layertee is tried with: 3.14.3 or newer"
    ]


def test_the_packages_that_these_tests_run_with_are_new_enough() -> None:
    assert [line for line in library_warnings() if "is older than" in line] == []
