"""The table of parser targets, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tests.fuzz import configuration, documents, foreign, messages, serving, signing, sigstore, trusting
from tests.fuzz.target import Target

PARSERS: Final[Mapping[str, Target]] = {
    target.name: target
    for target in (
        *documents.TARGETS,
        *foreign.TARGETS,
        *configuration.TARGETS,
        *messages.TARGETS,
        *serving.TARGETS,
        *signing.TARGETS,
        *sigstore.TARGETS,
        *trusting.TARGETS,
    )
}
