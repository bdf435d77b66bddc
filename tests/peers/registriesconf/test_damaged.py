"""Damaged files beside containers/image: it reads TOML by a library of its own, of another version."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.registries import ours, theirs
from tests.support.registries_damaged import damaged
from tests.support.rig.prebuild import NotBuilt, program

pytestmark = [pytest.mark.slow, pytest.mark.builds("registriesconf")]

N_CASES = 4000


def test_what_is_left_of_a_damaged_file_is_read_or_refused_as_by_the_peer(tmp_path: Path) -> None:
    try:
        peer = program("registriesconf")
    except NotBuilt as exc:
        pytest.skip(str(exc))
    placed = [(damaged(seed), tmp_path / str(seed)) for seed in range(N_CASES)]
    for case, root in placed:
        case.write(root)
    n_taken = 0
    differing = []
    for (case, root), its in zip(placed, theirs(peer, placed), strict=True):
        n_taken += not its.refused
        if ours(case, root) != its:
            differing.append((case, ours(case, root), its))
    assert not differing[:3], len(differing)
    assert N_CASES / 10 < n_taken < N_CASES / 2, n_taken
