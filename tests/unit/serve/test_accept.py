"""Accept: which types of manifests a client takes."""

from __future__ import annotations

import pytest

from layertee.image.media import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from layertee.serve.accept import Accept


@pytest.mark.parametrize(
    ("field", "takes"),
    [
        (None, {OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST}),
        ("", {OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST}),
        ("nonsense", {OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST}),
        ("*/*", {OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST}),
        ("*/*;q=0", set()),
        ("text/html", set()),
        ("application/*", {OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST}),
        (f"application/*;q=0, {OCI_INDEX}", {OCI_INDEX}),
        (f"{OCI_INDEX};q=0,*/*;q=0.1", {OCI_MANIFEST, DOCKER_MANIFEST}),
        (f"{OCI_INDEX};q=0.000,*/*", {OCI_MANIFEST, DOCKER_MANIFEST}),
        (OCI_MANIFEST, {OCI_MANIFEST}),
        (OCI_MANIFEST.upper(), {OCI_MANIFEST}),
        (f"{OCI_MANIFEST} ; charset=utf-8; q=0.5", {OCI_MANIFEST}),
        (f"{OCI_MANIFEST};q=2", {OCI_MANIFEST}),  # no weight: as if it were not there
        (f"{OCI_MANIFEST};q=0,{OCI_MANIFEST};q=1", {OCI_MANIFEST}),
        (f"{OCI_MANIFEST},{DOCKER_MANIFEST}", {OCI_MANIFEST, DOCKER_MANIFEST}),
        (",,;;,", {OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST}),
    ],
)
def test_the_most_specific_range_decides(field: str | None, takes: set[str]) -> None:
    accept = Accept(field)
    assert {name for name in (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST) if accept.takes(name)} == takes
