"""With which logins registries are asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..config.logins import Credentials

if TYPE_CHECKING:
    from ..options import Options


def credentials_of(options: Options, helpers: Sequence[str]) -> Credentials:
    """What the caller gave, or what the machine's files and ``helpers`` have; none for an anonymous pull."""
    if options.anonymous:
        return Credentials.no_credentials()
    if options.credentials is not None:
        from ..config.givenlogins import GivenCredentials

        return GivenCredentials(options.credentials, trusted_realms=options.trusted_realms)
    return Credentials(options.authfile, helpers=helpers, trusted_realms=options.trusted_realms)
