"""What a name means in a store whose images have certain ids."""

from __future__ import annotations

import pytest

from layertee.errors import InvalidReference, NotFound
from layertee.image.stored_name import StoredName, parse_stored

ONE, TWO = "abc" + "0" * 61, "abd" + "0" * 61
DIGEST = "sha256:" + "5" * 64


def expand(prefix: str) -> str | None:
    found = [one for one in (ONE, TWO) if one.startswith(prefix)]
    return found[0] if len(found) == 1 else None


@pytest.mark.parametrize(
    ("text", "repository", "tag", "digest", "image_id"),
    [
        ("os", "docker.io/library/os", "latest", None, None),
        ("a/os:1", "docker.io/a/os", "1", None, None),
        ("localhost/os", "localhost/os", "latest", None, None),
        ("host:5000/os", "host:5000/os", "latest", None, None),
        ("Host/os:1", "Host/os", "1", None, None),
        ("index.docker.io/os", "docker.io/library/os", "latest", None, None),
        (f"os@{DIGEST}", "docker.io/library/os", None, DIGEST, None),
        (f"os:1@{DIGEST}@abc", "docker.io/library/os", "1", DIGEST, ONE),
        ("os@abd", "docker.io/library/os", "latest", None, TWO),
        ("abc", None, None, None, ONE),
        ("@abc0", None, None, None, ONE),
        (ONE, None, None, None, ONE),
        ("f" * 64, None, None, None, "f" * 64),
        ("ab", "docker.io/library/ab", "latest", None, None),
        ("abc:1", "docker.io/library/abc", "1", None, None),
        ("abe", "docker.io/library/abe", "latest", None, None),
    ],
)
def test_a_name_is_made_whole(
    text: str, repository: str | None, tag: str | None, digest: str | None, image_id: str | None
) -> None:
    assert parse_stored(text, expand) == StoredName(repository, tag, digest, image_id)


def test_a_whole_name_is_as_the_records_have_it() -> None:
    assert parse_stored("os:1", expand).name == "docker.io/library/os:1"
    assert parse_stored(f"h.x/os:1@{DIGEST}", expand).name == f"h.x/os:1@{DIGEST}"
    assert parse_stored("abc", expand).name is None


@pytest.mark.parametrize(
    "text",
    ["", "@", "os@", "os@@abc", "os@xyz", "OS", "os:", "os:1:2", "/os", "os/", "-/os", "os@sha256:5@abc"],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference):
        parse_stored(text, expand)


@pytest.mark.parametrize("text", ["@ab0", "os@abe"])
def test_the_beginning_of_no_id_is_not_found(text: str) -> None:
    with pytest.raises(NotFound, match="begins with ab"):
        parse_stored(text, expand)
