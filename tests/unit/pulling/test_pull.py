"""How many layers are pulled at once."""

from __future__ import annotations

import pytest

from layertee.pulling.pull import layers_in_flight


@pytest.mark.parametrize(("n_workers", "layers"), [(1, 3), (2, 3), (3, 4), (4, 5), (8, 9), (16, 9), (64, 9)])
def test_layers_in_flight_follow_the_workers(n_workers: int, layers: int) -> None:
    assert layers_in_flight(n_workers) == layers
