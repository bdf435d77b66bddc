"""The locks of what a release is built with, and of what layertee runs with."""

from __future__ import annotations

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from release import lock
from release.project import ReleaseError

LOCKS = ("run.txt", "extras.txt", "tools.txt")


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_one_version_with_hashes_of_all_that_the_project_asks_for(name: str) -> None:
    wanted = [Requirement(line) for line in lock.requirements()[name]]
    found = lock.locked(name)  # refuses lines without a hash
    outdated = [
        str(requirement)
        for requirement in wanted
        if (has := found.get(canonicalize_name(requirement.name))) is None
        or not requirement.specifier.contains(lock.version_of(has))
    ]
    assert outdated == [], "run: python -m release lock"


def test_every_lock_names_the_same_version_of_a_package() -> None:
    versions: dict[str, set[str]] = {}
    for name in LOCKS:
        for package, requirement in lock.locked(name).items():
            versions.setdefault(package, set()).add(lock.version_of(requirement))
    assert {package: found for package, found in versions.items() if len(found) > 1} == {}


@pytest.mark.parametrize("line", ["left>=1 --hash=sha256:00", "left==1"])
def test_what_is_not_locked_is_refused(line: str) -> None:
    with pytest.raises(ReleaseError, match="left"):
        lock.parse(f"right==1 \\\n    --hash=sha256:00\n{line}\n", "some.txt")
