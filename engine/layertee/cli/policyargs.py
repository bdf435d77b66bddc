"""The arguments that say which images are taken at all, of every command that resolves one."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from . import values

if TYPE_CHECKING:
    from ..options import PolicyOptions


def add_policy(parser: argparse.ArgumentParser) -> None:
    """All that :func:`policy_of` reads."""
    group = parser.add_argument_group("which images are taken ('layertee help signatures')")
    group.add_argument(
        "--policy",
        type=values.path_or_none,
        metavar="FILE",
        help="in place of this machine's policy.json",
    )
    group.add_argument(
        "--insecure-policy",
        action="store_true",
        help="take any image: apply neither policy.json nor trust.toml",
    )
    group.add_argument(
        "--registries.d",
        type=values.path_or_none,
        dest="registries_d",
        metavar="DIR",
        help="where signatures are, in place of this machine's registries.d",
    )
    group.add_argument(
        "--trust-file",
        type=values.path,
        metavar="FILE",
        help="in place of /etc/layertee/trust.toml and trust.d",
    )
    group.add_argument(
        "--signatures-by",
        choices=("layertee", "skopeo"),
        default="layertee",
        help="what checks what policy.json asks for (default: %(default)s)",
    )
    group.add_argument(
        "--max-age",
        type=values.age,
        metavar="AGE",
        help="say so when a tag's image is older: 12h, 30d, 8w",
    )
    group.add_argument(
        "--allow-downgrade",
        action="store_true",
        help="take an image that is older than one seen under its name, or than trust.toml allows",
    )


def policy_of(args: argparse.Namespace) -> PolicyOptions:
    """What was typed. What a command has not gets its default."""
    from ..options import PolicyOptions, SignaturesBy  # not for --help

    return PolicyOptions(
        file=args.policy,
        insecure=args.insecure_policy,
        required=getattr(args, "policy_required", False),
        registries_d=args.registries_d,
        signatures_by=SignaturesBy(args.signatures_by),
        skopeo=getattr(args, "skopeo", None),
        trust_file=args.trust_file,
        max_age_s=args.max_age,
        allow_downgrade=args.allow_downgrade,
    )
