"""Where measurements read and write: caches that all checkouts of a user share, and the results."""

from __future__ import annotations

from pathlib import Path

from tests.support.rig import kept

__all__ = ["BUILT", "DESTINATIONS", "RESULTS", "cache"]

BUILT = Path("build/bench")
RESULTS = Path("bench/results")
DESTINATIONS = {"tmpfs": Path("/dev/shm"), "disk": BUILT / "out"}


def cache() -> Path:
    """Of images, packages and peers: outside of the checkout, so that two checkouts pull the same image."""
    return kept.root() / "bench"
