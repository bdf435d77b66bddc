"""A short name that may be several images: a person at a terminal is asked which one is meant."""

from __future__ import annotations

import argparse
import sys

from ..config.registries import Registries
from ..config.shortnames import Candidates, candidates, recorded_at
from ..image.reference import Reference, ShortName, parse_name
from .output import tell

_TRIES = 3


def in_full(args: argparse.Namespace) -> str:
    """``args.image``, or what a person chose for it. Asked only where podman asks.

    That is where several registries are searched, short-name-mode is not "disabled", and standard input,
    output and error are a terminal; elsewhere the engine decides. Raises InvalidReference (UnresolvedName),
    RegistriesConfError.
    """
    text: str = args.image
    named = parse_name(text)
    if not isinstance(named, ShortName) or not _is_terminal():
        return text
    found = candidates(named, Registries.read(path=args.registries_conf), recorded_at())
    return str(_asked(found)) if found.is_for_a_person else text


def _is_terminal() -> bool:
    streams = (sys.stdin, sys.stdout, sys.stderr)  # the question is on standard error
    return all(stream is not None and not stream.closed and stream.isatty() for stream in streams)


def _asked(found: Candidates) -> Reference:
    """Raises UnresolvedName for an answer that is none."""
    numbered = {str(number): reference for number, reference in enumerate(found.references, 1)}
    tell(f"{found.name} may be ({found.why}):")
    tell(*(f"  {number}  {reference}" for number, reference in numbered.items()))
    for _ in range(_TRIES):
        tell(f"which one? 1 to {len(numbered)}, then Enter:")
        answer = sys.stdin.readline()
        if chosen := numbered.get(answer.strip()):
            tell("to be asked no more, write into registries.conf, under [aliases]:")
            tell(f'  "{found.name.repository}" = "{chosen.name}"')
            return chosen
        if not answer:
            break
    raise found.undecided()
