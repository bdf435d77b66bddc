"""``layertee tags``."""

from __future__ import annotations

import argparse

from ..options import Options
from ..pulling.network import Network
from ..pulling.tags import RepositoryTags, parse_repository, tags_of
from ..sync import run
from .exits import EXIT_OK
from .output import print_json, say, warn
from .secrets import given_login
from .shortnames import in_full


def tags(args: argparse.Namespace) -> int:
    """Raises what ``tags_of`` raises."""
    parse_repository(args.image)
    # What a person chooses for a short name has a tag, as all images have.
    name = in_full(args).removesuffix(":latest")

    async def main() -> RepositoryTags:
        network = Network(_options(args))
        try:
            return await tags_of(name, network)
        finally:
            await network.close()

    found = run(main())
    warn(found.warnings)
    if args.json:
        print_json(
            {"repository": found.repository, "tags": list(found.tags), "warnings": list(found.warnings)}
        )
    else:
        say(*found.tags)
    return EXIT_OK


def _options(args: argparse.Namespace) -> Options:
    creds = given_login(args)
    return Options(
        authfile=args.authfile if creds is None else None,
        credentials=creds,
        trusted_realms=tuple(args.trusted_realms),
        tls_verify=args.tls_verify,
        registries_conf=args.registries_conf,
        cert_dir=args.cert_dir,
    )
