"""``layertee doctor IMAGE``: what this machine's configuration means for one image."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from ..config.registries import Registries
from ..config.shortnames import candidates, recorded_at
from ..image.reference import ImageReference, ShortName, parse_name
from ..options import Options, PolicyOptions
from ..pulling.explain import EndpointFacts, Explanation, explain
from ..sync import run
from .exits import EXIT_ERROR, EXIT_OK
from .output import print_json, say


def doctor_image(args: argparse.Namespace) -> int:
    """Raises InvalidReference, RegistriesConfError."""
    options = Options(
        authfile=args.authfile,
        tls_verify=args.tls_verify,
        cert_dir=args.cert_dir,
        registries_conf=args.registries_conf,
        policy=PolicyOptions(file=args.policy, registries_d=args.registries_d, trust_file=args.trust_file),
    )
    image = _meant(args)
    found = run(explain(image, options))
    if args.json:
        print_json(found.to_json())
    else:
        say(*_lines(found))
    broken = found.refused or any(endpoint.problem for endpoint in found.endpoints)
    return EXIT_ERROR if broken else EXIT_OK


def _meant(args: argparse.Namespace) -> ImageReference:
    """What is named; a short name has to stand for one image. Raises InvalidReference (UnresolvedName)."""
    named = parse_name(args.image)
    if not isinstance(named, ShortName):
        return named
    found = candidates(named, Registries.read(path=args.registries_conf), recorded_at())
    if len(found.references) > 1:
        raise found.undecided()
    return found.references[0]


def _lines(found: Explanation) -> Iterator[str]:
    yield f"image: {found.image}"
    yield f"files read: {', '.join(map(str, found.files)) or 'none about registries'}"
    if found.refused:
        yield f"refused: {found.refused}"
    for number, endpoint in enumerate(found.endpoints, 1):
        yield from _endpoint(number, endpoint)
    if found.policy_problem:
        yield f"policy: {found.policy_problem}"
    elif not found.sections:
        yield "policy: there is no policy.json: pull takes any image, image-proxy none"
    for section in found.sections:
        yield f"policy: {section.file}, {section.section}: {section.verdict}"
    if len(found.sections) > 1:
        yield "  all of them have to take it"
    for note in found.policy_notes:
        yield f"  {note}"


def _endpoint(number: int, facts: EndpointFacts) -> Iterator[str]:
    kind = "mirror" if facts.is_mirror else "origin"
    flags = ", insecure: any certificate, or plain HTTP" if facts.insecure else ""
    yield f"endpoint {number}: {facts.name} ({kind}{flags})"
    yield f"  from: {facts.whence or 'the name itself: no section of registries.conf is about it'}"
    if facts.cert_dir is None:
        yield "  certificates: the system's authorities"
    else:
        files = ", ".join(facts.cert_files) or "nothing in it"
        yield f"  certificates: the system's authorities, and {facts.cert_dir} ({files})"
    for at, login in enumerate(facts.logins or ("none, anonymous",)):
        yield f"  {'or else' if at else 'login'}: {login}"
    yield f"  proxy: {facts.proxy or 'none'}"
    places = facts.signatures
    yield f"  signatures: {places.lookaside} ({places.lookaside_file or 'by default'})"
    beside = "looked for" if places.attachments else "not looked for"
    yield f"  sigstore attachments: {beside} ({places.attachments_file or 'by default'})"
    if facts.problem:
        yield f"  problem: {facts.problem}"
